"""The ends of a grid, where the rules of samplers read alpha and sigma, never a step's number."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from diffusion_jax.types import GaussianProcess, Time


def takes_ddim(process: GaussianProcess, x: Array, t: Time, s: Time) -> Bool[Array, "..."]:
    """Where a solver takes exactly DDIM's step: alpha_t = 0 or sigma_s = 0; the rank of x."""
    alpha_t, _ = process.scales(t, x)
    _, sigma_s = process.scales(s, x)
    return (alpha_t == 0) | (sigma_s == 0)


def above_data(
    process: GaussianProcess, x: Array, t: Time, s: Time
) -> tuple[Time, Bool[Array, " b"]]:
    """The time to ask a denoiser about, s or, where x_s is clean, t; and where it is clean.

    A network may have no answer at sigma = 0 (a logarithm of sigma, say). What it answers for
    t instead is thrown away, but it is finite, and so are the gradients.
    """
    _, sigma = process.scales(s, x)
    clean = jnp.all((sigma == 0).reshape(x.shape[0], -1), axis=1)
    return jnp.where(clean, t, s), clean
