"""Euler's method for the probability flow, in t.

    dx/dt = alpha'(t) x0 + sigma'(t) noise,   x_s = x_t + (s - t) dx/dt                 (1)

In sigma/alpha, as Karras et al. and the peers that follow them have it, Euler's method is

    x_s / alpha_s = x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) noise       (2)

which is x_s = alpha_s x0 + sigma_s noise: `DDIM()`. For rectified flow (1) is DDIM too.

Source: Song et al. 2021 (arXiv:2011.13456), equation (13).
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.sde import probability_flow
from diffusion_jax.types import Denoiser


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class Euler:
    """Equation (1); from alpha_t = 0 and to sigma_s = 0 the DDIM step."""

    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        here = denoiser(x, t)
        rate = probability_flow(process, t, x, here)
        alpha_t, _ = process.scales(t, x)
        _, sigma_s = process.scales(s, x)
        moved = x + expand(s - t, x) * rate
        end = (alpha_t == 0) | (sigma_s == 0)
        return jnp.where(end, process.corrupt(here.x0, here.noise, s), moved), state
