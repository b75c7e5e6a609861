"""The variational bound of DDPM, over a grid of times 1 = t_0 > t_1 > ... > t_T = 0.

    -log P(x_0) <= KL(q(x_1 | x_0) || p(x_1))                                   prior
        + sum_i E KL(q(x_s | x_t, x_0) || p(x_s | x_t)),  t = t_i, s = t_{i+1}  diffusion
        - E log p(x_0 | x_t),  t = t_{T-1}, s = 0                               reconstruction  (1)

for p(x_1) = N(0, sigma_1^2) and reverse steps p(x_s | x_t) = N(m(x_t, x0hat), w'): the model that
ancestral sampling draws from on this grid, with a decoder for its last step. With the mean m and
the variance w of q(x_s | x_t, x_0),

    KL = 1/2 sum_d (w/w' - 1 - log(w/w')) + (m(x_t, x_0) - m(x_t, x0hat))^2 / (2 w').          (2)

Steps may be summed, or drawn: step i with probability p_i, weighed by 1/p_i. The KL of one step
is 1/2 (SNR_s - SNR_t) |x_0 - x0hat|^2 where w' = w, hence p_i is proportional to the fall of
log(1 + SNR), for which (1 + SNR)|x_0 - x0hat|^2 is even and bounded; one draw in ten is uniform.

Sources: Ho et al. 2020 (arXiv:2006.11239), (5), (8), section 3.3; Nichol & Dhariwal 2021
(arXiv:2102.09672), (15) and section 3.3.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.likelihood.bound import (
    Bound,
    average,
    check_draws,
    decode_term,
    prior_term,
    strata,
    sum_examples,
)
from diffusion_jax.likelihood.pixels import Decoder, discretised_gaussian
from diffusion_jax.processes import divide, transition
from diffusion_jax.random import white_noise
from diffusion_jax.types import Denoiser, GaussianProcess, Index, Key, Prediction, Time
from diffusion_jax.variances import Variance, fixed_small


def variational_bound(
    key: Key,
    process: GaussianProcess,
    denoiser: Denoiser,
    image: Float[Array, "b ..."],
    times: Float[Array, " times"],
    *,
    variance: Variance = fixed_small,
    decoder: Decoder = discretised_gaussian,
    index: Index | None = None,
) -> Bound:
    """The bound (1) with every step of the grid: T calls of the denoiser.

    Args:
        key: typed key; example e draws from its index alone, whatever the batch.
        process: the forward process that the denoiser belongs to.
        denoiser: (x, t) -> Prediction.
        image: x_0 in pixels; 8-bit levels in [-1, 1] for the default decoder.
        times: descending from 1 to 0, such as `trailing(1000)`.
        variance: w' of the reverse steps but the last, which the decoder takes.
        decoder: (x, mean, std) -> log p(x | x_t) [b]; `gaussian_density` for continuous data.
        index: the examples' numbers [b]; 0..b-1 by default.

    Raises:
        ValueError: the grid has no step, or the learned variance isn't there.
    """
    steps, term, whole = _terms(key, process, denoiser, image, times, variance, decoder, index)

    def add(total, i):
        return total + term(i, jnp.full(image.shape[:1], i)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(whole.prior), jnp.arange(steps))
    return whole._replace(diffusion=total)


def estimated_bound(
    key: Key,
    process: GaussianProcess,
    denoiser: Denoiser,
    image: Float[Array, "b ..."],
    times: Float[Array, " times"],
    *,
    draws: int,
    variance: Variance = fixed_small,
    decoder: Decoder = discretised_gaussian,
    index: Index | None = None,
) -> Bound:
    """`variational_bound` without bias, from `draws` + 1 calls of the denoiser.

    Args:
        draws: steps drawn for each example, stratified.

    Raises:
        ValueError: draws < 1, or as `variational_bound`.
    """
    check_draws(draws)
    steps, term, whole = _terms(key, process, denoiser, image, times, variance, decoder, index)
    if not steps:
        return whole
    level = jax.nn.softplus(process.log_snr(jnp.asarray(times[:-1], whole.prior.dtype)))
    share = jnp.diff(level) / (level[-1] - level[0])
    probability = 0.9 * share + 0.1 / steps
    key_step = jax.random.fold_in(key, 2)
    index = jnp.arange(image.shape[0]) if index is None else index

    def weighed(j):
        u = strata(key_step, index, j, draws, level.dtype)
        i = jnp.minimum(jnp.searchsorted(jnp.cumsum(probability), u), steps - 1)
        return term(j, i) / probability[i]

    mean, error = average(weighed, draws)
    return whole._replace(diffusion=mean, error=error)


def _terms(key, process, denoiser, image, times, variance, decoder, index):
    """(number of diffusion steps, (draw j, step i [b]) -> KL [b], the Bound without diffusion)."""
    times = jnp.asarray(times)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"times has shape {times.shape}; a grid is [n + 1] with n at least 1.")
    x0 = process.encode(image)
    x0 = x0.astype(jnp.promote_types(x0.dtype, jnp.float32))
    index = jnp.arange(image.shape[0]) if index is None else index
    key_end, key_noise = (jax.random.fold_in(key, stream) for stream in (0, 1))

    def at(i) -> Time:
        return jnp.broadcast_to(times[i], image.shape[:1]).astype(x0.dtype)

    def kl(j, i):
        t, s = at(i), at(i + 1)
        noise = white_noise(jax.random.fold_in(key_noise, j), index, x0)
        x = process.corrupt(x0, noise, t)
        return step_kl(process, x0, x, denoiser(x, t), t, s, variance)

    t = at(-2)
    x = process.corrupt(x0, white_noise(key_end, index, x0), t)
    end = decode_term(process, decoder, image, x, denoiser, t)
    whole = Bound(prior_term(process, x0, at(0)), jnp.zeros_like(end), end, jnp.zeros_like(end))
    return len(times) - 2, kl, whole


def step_kl(
    process: GaussianProcess,
    x0: Array,
    x: Array,
    prediction: Prediction,
    t: Time,
    s: Time,
    variance: Variance = fixed_small,
) -> Float[Array, " b"]:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) of equation (2), nats [b]; s > 0.

    Args:
        process: gives alpha and sigma.
        x0: the clean example, in the process's coordinates.
        x: x_t.
        prediction: the denoiser's, at (x, t).
        t, s: the step [b], s < t.
        variance: w' of the reverse step.
    """
    alpha_s, _ = process.scales(s, x)
    _, sigma_t = process.scales(t, x)
    _, large = transition(process, s, t, x)
    small = fixed_small(process, prediction, t, s)
    chosen = variance(process, prediction, t, s)
    ratio = divide(small, chosen)
    # m(x_0) - m(x0hat), written without the x_t that both contain.
    shift = alpha_s * divide(large, sigma_t**2) * (x0 - prediction.x0)
    spread = jnp.where(ratio == 0, 0.0, ratio - 1 - jnp.log(jnp.where(ratio == 0, 1.0, ratio)))
    return sum_examples(0.5 * spread, x) + sum_examples(0.5 * divide(shift**2, chosen), x)
