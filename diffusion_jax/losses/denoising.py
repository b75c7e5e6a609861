"""The denoising loss: how far the network's y is from a x_0 + b noise.

    L = E_{x_0, noise, t} w(t) || y(x_t, t) - (a x_0 + b noise) ||^2 / dimensions           (1)

A weighting w is a value, called as weighting(process, parameterization, t, x). `constant`
weighs the network's own output by 1. `simple` is DDPM's L_simple, the squared error of the
noise, whatever the network predicts: w = (alpha / det)^2 with det = alpha b - sigma a.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.parameterizations import target
from diffusion_jax.processes import divide
from diffusion_jax.random import example_keys, normal
from diffusion_jax.timesteps import Times, Uniform
from diffusion_jax.types import (
    Apply,
    Batch,
    Condition,
    Extra,
    GaussianProcess,
    Index,
    Key,
    Loss,
    Metrics,
    Parameterization,
    Params,
    Time,
)

Weighting = Callable[[GaussianProcess, Parameterization, Time, Array], Array]


def constant(
    process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
) -> Array:
    """w = 1 for the network's own output, rank of x."""
    alpha, _ = process.scales(t, x)
    return jnp.ones_like(alpha)


def simple(
    process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
) -> Array:
    """w = (alpha / det)^2: L_simple of Ho et al. 2020, (14), for any parameterization."""
    alpha, sigma = process.scales(t, x)
    a, b = parameterization.coefficients(process, t, x)
    return divide(alpha, alpha * b - sigma * a) ** 2


def unconditional(key: Key, index: Index, batch: Batch) -> Condition:
    """No condition, for any batch."""
    return Condition()


def denoising_loss(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    *,
    times: Times = Uniform(),
    weighting: Weighting = simple,
    condition: Callable[[Key, Index, Batch], Condition] = unconditional,
) -> Loss:
    """The loss of equation (1), for one batch.

    Args:
        apply: (params, x, t, condition, *, key=None) -> y; the key is for dropout.
        process: corrupts.
        parameterization: what the network predicts.
        times: draws t for each example.
        weighting: w(t).
        condition: (key, index, batch) -> Condition, with its own dropping of conditions.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "mse"}, extra)). The batch has
        "image" [b h w c] in [-1, 1]. Example i draws from keys folded with i.

    Source: Ho et al. 2020 (arXiv:2006.11239), Algorithm 1 and equation (14).
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        key_time, key_noise, key_condition, key_network = jax.random.split(key, 4)
        x0 = process.encode(batch["image"])
        count = x0.shape[0]
        index = jnp.arange(count)

        t = times(key_time, index, count)
        noise = normal(example_keys(key_noise, index), x0.shape[1:], x0.dtype)
        x = process.corrupt(x0, noise, t)
        c = condition(key_condition, index, batch)

        y = process.encode(apply(params, process.decode(x), t, c, key=key_network))
        error = (y - target(parameterization, process, x0, noise, t)) ** 2
        value = jnp.mean(weighting(process, parameterization, t, x) * error)
        metrics: Metrics = {"loss": value, "mse": jnp.mean(error)}
        return value, (metrics, extra)

    return loss
