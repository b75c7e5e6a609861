"""DDIM: x_s put together again from the predicted x0 and noise.

On an ascending grid it inverts: x_0 becomes the x_t from which the same grid, descending,
makes it again, up to an error that halves as the number of steps doubles (DDIM is Euler's
method, whose slope is taken at either end of a step). The grid starts at a t > 0 unless the
network's output says what the noise at sigma = 0 is (noise and v do, x0 doesn't).
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.processes import posterior
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=["eta"], meta_fields=[])
@dataclass(frozen=True)
class DDIM:
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - w) noise + sqrt(w) z,  w = eta^2 w_posterior.

    Attributes:
        eta: 0 is deterministic, x_s = corrupt(x0, noise, s); 1 is ancestral sampling. Traced.

    Source: Song et al. 2021 (arXiv:2010.02502), equations (12) and (16).
    """

    eta: Scalar = 0.0
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        alpha, sigma = process.scales(s, x)
        _, variance = posterior(process, x, x0, t, s)
        variance = self.eta**2 * variance
        rest = safe_sqrt(sigma**2 - variance)
        return alpha * x0 + rest * predicted + safe_sqrt(variance) * noise(0), state
