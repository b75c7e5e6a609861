"""Euler-Maruyama: the reverse SDE in steps of t.

x_s = x_t - (f x_t - g^2 grad log q(x_t)) (t - s) + g sqrt(t - s) z                 (1)
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.sde import diffusion, reverse_drift
from diffusion_jax.types import Denoiser


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class EulerMaruyama:
    """Equation (1), on a descending grid.

    Start the grid below 1 where alpha(1) is 0 or nearly so: f and g are infinite or huge
    there, and the steps must be short against 1/|f|. It takes DDIM's step at alpha_t = 0 and
    sigma_s = 0.

    Source: Song et al. 2021 (arXiv:2011.13456), equation (6) and section 4.1.
    """

    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        prediction = denoiser(x, t)
        dt = expand(t - s, x)
        drift = reverse_drift(process, t, x, prediction)
        moved = x - drift * dt + diffusion(process, t, x) * safe_sqrt(dt) * noise(0)
        ddim = process.corrupt(prediction.x0, prediction.noise, s)
        (alpha_t, _), (_, sigma_s) = process.scales(t, x), process.scales(s, x)
        return jnp.where((alpha_t == 0) | (sigma_s == 0), ddim, moved), state
