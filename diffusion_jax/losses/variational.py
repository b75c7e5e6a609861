"""The variational bound as a loss, term by term, and the hybrid that trains a variance.

On a table of T entries, t = (k + 1)/T and s = k/T, with m and w the posterior's mean and
variance and m', w' the model's (w' between posterior and transition, `LearnedVariance`):

    L_k = KL(N(m, w) || N(m', w'))
        = (log(w'/w) + w/w' + (m - m')^2/w' - 1) / 2     for k > 0                      (1)
    L_0 = -log p(x_0 | x_1), a Gaussian over the pixel's bin of width 2/255             (2)

each a mean over dimensions, in bits; the bound is the sum over k. The hybrid trains the mean
by L_simple alone:

    L_hybrid = L_simple + weight T L_k,  the gradient of (1), (2) in m' stopped         (3)

With a learned schedule (`Learned`) the bound has three terms, all for continuous time:

    L = E_t[-lambda' ||noise - noise'||^2] / 2 + KL(q(x_1 | x_0) || N(0, I))
        - E log p(x_0 | x_{0+}),   p over the levels ~ N(x; alpha level, sigma^2)       (4)

Sources: Ho et al. 2020 (arXiv:2006.11239), (5), (13); Nichol & Dhariwal 2021
(arXiv:2102.09672), section 3.1; Kingma et al. 2021 (arXiv:2107.00630), (11) to (17).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.likelihood.discrete import step_kl
from diffusion_jax.likelihood.pixels import log_bin_mass
from diffusion_jax.losses.denoising import (
    Answer,
    Conditioning,
    Terms,
    ask,
    denoising_terms,
    per_example,
    unconditional,
)
from diffusion_jax.losses.weightings import Weighting, elbo, simple
from diffusion_jax.parameterizations import target
from diffusion_jax.processes import Gaussian, transition
from diffusion_jax.random import white_noise
from diffusion_jax.schedules import Learned
from diffusion_jax.timesteps import Stratified, Times
from diffusion_jax.types import (
    Apply,
    Batch,
    Extra,
    GaussianProcess,
    Key,
    Loss,
    Parameterization,
    Params,
    Time,
)
from diffusion_jax.variances import fixed_small, learned_range


def _bits(
    answer: Answer,
    process: GaussianProcess,
    parameterization: Parameterization,
    steps: int,
    t: Time,
    y: Array,
) -> Array:
    """(1) or (2) for each example, in bits a dimension, [b]."""
    x0, _, x, _, v = answer
    if v is None:
        raise ValueError(f"{parameterization} predicts no variance; use LearnedVariance(...).")
    a, b = parameterization.coefficients(process, t, x)
    guess = process.solve(x, t, y, a, b)._replace(variance=v)
    # The first posterior variance is 0, and has no logarithm: the second stands in for it.
    later, before = jnp.maximum(t, 2.0 / steps), jnp.maximum(t - 1.0 / steps, 1.0 / steps)
    kl = step_kl(process, x0, x, guess, later, before, learned_range) / (x0.size / x0.shape[0])
    small = fixed_small(process, guess, later, before)
    _, large = transition(process, jnp.maximum(t - 1.0 / steps, 0.0), t, x)
    decoder = per_example(-log_bin_mass(x0, guess.x0, jnp.sqrt(small * (large / small) ** v)))
    first = t * steps < 1.5
    return jnp.where(first, decoder, kl) / math.log(2)


def variational_terms(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    steps: int,
    *,
    condition: Conditioning = unconditional,
) -> Terms:
    """(1) and (2) for each example, in bits a dimension: `steps` times their mean is the bound.

    The prior's term, which has no parameters, is left out. Their variance over t is large:
    draw t by `importance_sampled`.

    Args:
        apply: a network with twice the channels.
        process: on pixels (`encode` is the identity).
        parameterization: a `LearnedVariance`.
        steps: entries of the table, T.
        condition: as in `denoising_loss`.
    """
    if steps < 2:
        raise ValueError(f"steps is {steps}; the bound of a table needs at least 2.")
    answer = ask(apply, process, parameterization, condition)

    def terms(params: Params, key: Key, batch: Batch, t: Time):
        said = answer(params, key, batch, t)
        bits = _bits(said, process, parameterization, steps, t, said.y)
        error = (said.y - target(parameterization, process, said.x0, said.noise, t)) ** 2
        return bits, {"mse": per_example(error)}

    return terms


def hybrid_terms(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    steps: int,
    *,
    weight: float = 0.001,
    weighting: Weighting = simple,
    condition: Conditioning = unconditional,
) -> Terms:
    """(3) for each example; `averaged(hybrid_terms(...), Discrete(steps))` is the loss.

    Args:
        apply, process, parameterization, steps, condition: as in `variational_terms`.
        weight: of the bound beside L_simple.
        weighting: of the squared error.
    """
    answer = ask(apply, process, parameterization, condition)

    def terms(params: Params, key: Key, batch: Batch, t: Time):
        said = answer(params, key, batch, t)
        x0, noise, x, y, _ = said
        error = (y - target(parameterization, process, x0, noise, t)) ** 2
        weighted = per_example(weighting(process, parameterization, t, x) * error)
        fixed = jax.lax.stop_gradient(y)
        bits = _bits(said, process, parameterization, steps, t, fixed)
        total = weighted + weight * steps * bits
        return total, {"mse": per_example(error), "bits": bits}

    return terms


def vdm_loss(
    apply: Apply,
    parameterization: Parameterization,
    *,
    times: Times = Stratified(),
    levels: int = 256,
    condition: Conditioning = unconditional,
) -> Loss:
    """The bound (4) in bits a dimension, of a network and its schedule trained together.

    The network and the schedule's ends minimise the bound, and the curve between the ends, on
    which the bound doesn't depend, the mean square of the diffusion term's estimates, for which
    the network runs a second time.

    Args:
        apply: the network's; its time is the schedule's `progress`, from 0 to 1.
        parameterization: what it predicts.
        times: draws t in [0, 1); even over a batch by default.
        levels: values that a pixel can have, evenly from -1 to 1.
        condition: as in `denoising_loss`.

    Returns:
        A loss whose params are {"network": ..., "schedule": init_learned(...)}; metrics
        "loss", "diffusion", "prior", "reconstruction", in bits a dimension, and "spread".
    """

    def diffusion(network: Params, schedule: Learned, key: Key, batch: Batch) -> Array:
        def told(params, x, t, condition, *, key=None):
            return apply(params, x, schedule.progress(t), condition, key=key)

        terms = denoising_terms(
            told, Gaussian(schedule), parameterization, weighting=elbo, condition=condition
        )
        count = batch["image"].shape[0]
        t = times(jax.random.split(key, 4)[0], jnp.arange(count), count)
        return terms(network, key, batch, t)[0]

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        schedule = Learned(params["schedule"])
        values = diffusion(params["network"], schedule.train(ends=True), key, batch)
        fixed = jax.lax.stop_gradient(params["network"])
        spread = jnp.mean(diffusion(fixed, schedule.train(ends=False), key, batch) ** 2)

        x0, ends = batch["image"], schedule.train(ends=True)
        start, end = ends.gamma(jnp.array([0.0, 1.0]))
        variance = jax.nn.sigmoid(end)
        prior = 0.5 * jnp.mean((1 - variance) * x0**2 + variance - jnp.log(variance) - 1)
        noise = white_noise(jax.random.fold_in(key, 4), jnp.arange(x0.shape[0]), x0)
        parts = {
            "diffusion": jnp.mean(values) / math.log(2),
            "prior": prior / math.log(2),
            "reconstruction": _reconstruction(x0, noise, start, levels) / math.log(2),
        }
        value = sum(parts.values(), start=jnp.zeros(()))
        # Of the spread only the gradient counts: the curve's, which the bound doesn't have.
        total = value + spread - jax.lax.stop_gradient(spread)
        return total, ({"loss": value, **parts, "spread": spread}, extra)

    return loss


def _reconstruction(x0: Array, noise: Array, gamma: Array, levels: int) -> Array:
    """-log p(x_0 | x) for x = x_0 + e^(gamma/2) noise, the mean over all dimensions, in nats."""
    values = jnp.linspace(-1.0, 1.0, levels)
    # From x_0 to each level, in units of the noise: distances that don't cancel.
    apart = x0[..., None] - values.reshape((1,) * x0.ndim + (levels,))
    logits = -0.5 * (apart * jnp.exp(-0.5 * gamma) + noise[..., None]) ** 2
    nearest = jnp.round((x0 + 1) * 0.5 * (levels - 1)).astype(int)
    chosen = jnp.take_along_axis(logits, nearest[..., None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)
