"""Soft diffusion's sampler: less corruption of the predicted x0, less of the noise that x has."""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.processes import divide
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=["eta"], meta_fields=[])
@dataclass(frozen=True)
class Momentum:
    """x_s = alpha_s x0 + k (x_t - alpha_t x0) + sqrt(w) z,  k = sqrt(sigma_s^2 - w) / sigma_t,

    w = eta^2 (sigma_s^2 / sigma_t^2) (sigma_t^2 - sigma_s^2), so for eta = 1

    x_s = x_t + (alpha_s - alpha_t) x0 - (1 - sigma_s^2 / sigma_t^2) (x_t - alpha_t x0) + sqrt(w) z.

    The corruption is taken back by the difference of two corruptions of x0, as in cold
    diffusion's Algorithm 2, and the noise as in a variance exploding process. alpha may be the
    blur of `Spectral` or the mask of `Masked`. `DDIM` differs in w alone, which it takes from a
    Markov chain in which noise, once added, is blurred too.

    Attributes:
        eta: 1 adds noise, 0 is deterministic; both keep the marginals. Traced.

    Source: Daras et al. 2022 (arXiv:2209.05442), Algorithm 2, an Euler step of the reverse SDE
    with w = sigma_t^2 - sigma_s^2. The factor sigma_s^2 / sigma_t^2, 1 for small steps, keeps
    the marginals in steps of any length.
    """

    eta: Scalar = 1.0
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0 = denoiser(x, t).x0
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.scales(t, x), process.scales(s, x)
        added = self.eta**2 * divide(sigma_s**2, sigma_t**2) * (sigma_t**2 - sigma_s**2)
        kept = divide(safe_sqrt(sigma_s**2 - added), sigma_t)
        x = alpha_s * x0 + kept * (x - alpha_t * x0) + safe_sqrt(added) * noise(0)
        return x, state
