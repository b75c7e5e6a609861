"""Cold diffusion's samplers: restore, then degrade again, but less.

    Algorithm 1   x_s = D(x0, s)                                                            (1)
    Algorithm 2   x_s = x_t - D(x0, t) + D(x0, s)                                           (2)

with the predicted x0. Where D(x0, t) = x0 + t e with one e for all x0, (2) is exact whatever is
predicted; elsewhere an error of x0 enters through D(., s) - D(., t), which is small for small
steps. They agree where x0 explains x_t. For Gaussian processes D takes the predicted noise too,
and (1) is DDIM.

Source: Bansal et al. 2022 (arXiv:2208.09392), Algorithms 1 and 2, section 3.3.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.types import Denoiser


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class ColdNaive:
    """Algorithm 1, equation (1)."""

    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, fixed, _ = denoiser(x, t)
        return process.corrupt(x0, fixed, s), state


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class ColdImproved:
    """Algorithm 2, equation (2)."""

    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, fixed, _ = denoiser(x, t)
        return x - process.corrupt(x0, fixed, t) + process.corrupt(x0, fixed, s), state
