"""Heun's second-order method for the probability flow, in sigma/alpha.

In y = x / alpha and r = sigma / alpha the probability flow is dy/dr = noise, so a step with
another noise n than the one predicted at x_t is

    x_s = alpha_s x0 + sigma_s noise + g (n - noise),  g = alpha_s (r_s - r_t)          (1)

and Heun's n is the mean of the noise at x_t and at the x_s of DDIM.

Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 1.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide
from diffusion_jax.types import Denoiser, GaussianProcess, Prediction, Time


def along(
    process: GaussianProcess, x: Array, prediction: Prediction, n: Array, t: Time, s: Time
) -> Array:
    """x_s of equation (1); from alpha_t = 0 and to sigma_s = 0 the DDIM step."""
    alpha_t, sigma_t = process.scales(t, x)
    alpha_s, sigma_s = process.scales(s, x)
    gain = jnp.where(
        (alpha_t == 0) | (sigma_s == 0), 0.0, sigma_s - divide(alpha_s * sigma_t, alpha_t)
    )
    x0, noise, _ = prediction
    return process.corrupt(x0, noise, s) + gain * (n - noise)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class Heun:
    """Equation (1): two evaluations a step, and one in a step to sigma_s = 0."""

    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        here = denoiser(x, t)
        x_s = process.corrupt(here.x0, here.noise, s)
        _, sigma_s = process.scales(s, x)
        there = jax.lax.cond(jnp.all(sigma_s == 0), lambda: here, lambda: denoiser(x_s, s))
        return along(process, x, here, 0.5 * (here.noise + there.noise), t, s), state
