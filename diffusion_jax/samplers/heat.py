"""Inverse heat: the picture becomes a little less blurred, and noisier by a constant."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.types import Denoiser, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=["delta"], meta_fields=[])
@dataclass(frozen=True)
class Heat:
    """x_s = alpha_s x0 + delta z, and without the noise at s = 0.

    Attributes:
        delta: noise of sampling, a little more than training's sigma: more of it draws more
            detail. 1.25 sigma, the paper's choice, for the sigma of `heat`. Traced.

    Source: Rissanen et al. 2022 (arXiv:2206.13397), Algorithm 2.
    """

    delta: Scalar = 0.025
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        alpha, _ = process.scales(s, x)
        added = self.delta * noise(0)
        return alpha * denoiser(x, t).x0 + jnp.where(expand(s, x) == 0, 0.0, added), state
