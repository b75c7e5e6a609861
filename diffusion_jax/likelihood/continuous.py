"""The variational bound of VDM: the discrete one with infinitely many steps.

    -log P(x) <= KL(q(x_1 | x) || p(x_1))                                         prior
        + 1/2 int_start^1 -SNR'(t) E |x - x0hat(x_t)|^2 dt                         diffusion
        - E log p(x | x_start)                                                   reconstruction  (1)

with SNR = alpha^2 / sigma^2 and -SNR' = -lambda' e^lambda. Between its ends the integral doesn't
depend on the schedule, so t is drawn where log(1 + SNR) is uniform:

    1/2 int (1 + SNR) |x - x0hat|^2 d log(1 + SNR).                                         (2)

At the start p(x | x_t) is the decoder with mean x0hat and the standard deviation sigma/alpha that
x_t leaves open. For the optimal denoiser of data with a density (1) is tight up to the ends.

Source: Kingma et al. 2021 (arXiv:2107.00630), (11)-(18) and appendix G.
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
from diffusion_jax.likelihood.pixels import HALF_BIN, Decoder, discretised_gaussian
from diffusion_jax.processes import divide
from diffusion_jax.random import white_noise
from diffusion_jax.types import Denoiser, GaussianProcess, Index, Key, Scalar, Time

_FAINTEST = 1e-6  # below this SNR times aren't drawn: log SNR has no derivative at alpha = 0


def start_at(process: GaussianProcess, std: Scalar = HALF_BIN) -> Array:
    """The time at which sigma/alpha, the noise on x_t / alpha, has this standard deviation.

    Half an 8-bit bin by default: with less noise a network that takes levels for a continuum pays
    for noise that it can't predict, with more the decoder can't tell levels apart.
    """
    return process.time_at(-2.0 * jnp.log(jnp.asarray(std)))


def continuous_bound(
    key: Key,
    process: GaussianProcess,
    denoiser: Denoiser,
    image: Float[Array, "b ..."],
    *,
    draws: int,
    start: Scalar | None = None,
    decoder: Decoder = discretised_gaussian,
    index: Index | None = None,
) -> Bound:
    """The bound (1), its integral estimated from `draws` times: `draws` + 1 denoiser calls.

    Args:
        key: typed key; example e draws from its index alone, whatever the batch.
        process: the forward process that the denoiser belongs to; its log SNR falls with t.
        denoiser: (x, t) -> Prediction.
        image: x in pixels; 8-bit levels in [-1, 1] for the default decoder.
        draws: times drawn for each example, stratified.
        start: the smallest time, > 0; `start_at(process)` by default.
        decoder: (x, mean, std) -> log p(x | x_start) [b]; `gaussian_density` for continuous data.
        index: the examples' numbers [b]; 0..b-1 by default.

    Raises:
        ValueError: draws < 1.
    """
    check_draws(draws)
    x0 = process.encode(image)
    x0 = x0.astype(jnp.promote_types(x0.dtype, jnp.float32))
    index = jnp.arange(image.shape[0]) if index is None else index
    key_end, key_noise, key_time = (jax.random.fold_in(key, stream) for stream in range(3))
    start = start_at(process) if start is None else start

    def at(t) -> Time:
        return jnp.broadcast_to(jnp.asarray(t, x0.dtype), image.shape[:1])

    def level(t):
        return jax.nn.softplus(process.log_snr(t))  # log(1 + SNR)

    top, bottom = level(at(start)), level(at(1.0))

    def integrand(j):
        u = strata(key_time, index, j, draws, x0.dtype)
        drawn = jnp.maximum(bottom + u * (top - bottom), _FAINTEST)
        t = process.time_at(jnp.log(jnp.expm1(drawn)))
        x = process.corrupt(x0, white_noise(jax.random.fold_in(key_noise, j), index, x0), t)
        error = (x0 - denoiser(x, t).x0) ** 2
        fall = sum_examples(snr_slope(process, t, x) * error, x)
        _, density = jax.jvp(level, (t,), (jnp.ones_like(t),))
        return 0.5 * divide(fall, density) * (top - bottom)

    diffusion, spread = average(integrand, draws)
    x = process.corrupt(x0, white_noise(key_end, index, x0), at(start))
    end = decode_term(process, decoder, image, x, denoiser, at(start))
    return Bound(prior_term(process, x0, at(1.0)), diffusion, end, spread)


def snr_slope(process: GaussianProcess, t: Time, x: Array) -> Array:
    """SNR'(t) = 2 alpha (alpha' sigma - alpha sigma') / sigma^3, with the rank of x."""
    (alpha, sigma), (dalpha, dsigma) = jax.jvp(
        lambda t: process.scales(t, x), (t,), (jnp.ones_like(t),)
    )
    return 2 * alpha * (dalpha * sigma - alpha * dsigma) / sigma**3
