"""Ancestral sampling: x_s drawn from the reverse Gaussian of DDPM.

    x_s = m(x_t, x0) + sqrt(w) z,   m the mean of q(x_s | x_t, x_0)                     (1)

The variance w is a value: `fixed_small` (the posterior's, beta-tilde) or `fixed_large` (the
transition's, beta). Neither adds noise in a step that ends at sigma_s = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import posterior, transition
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, GaussianProcess, Time

Variance = Callable[[GaussianProcess, Array, Time, Time], Array]


def fixed_small(process: GaussianProcess, x: Array, t: Time, s: Time) -> Array:
    """w = v sigma_s^2 / sigma_t^2, the posterior's variance (beta-tilde), rank of x."""
    _, variance = posterior(process, x, x, t, s)
    return variance


def fixed_large(process: GaussianProcess, x: Array, t: Time, s: Time) -> Array:
    """w = v = sigma_t^2 - r^2 sigma_s^2, the transition's variance (beta), rank of x."""
    _, variance = transition(process, s, t, x)
    return variance


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["variance"])
@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler, equation (1).

    Attributes:
        variance: the reverse variance w, a function (process, x, t, s) -> w.

    Source: Ho et al. 2020 (arXiv:2006.11239), Algorithm 2 and section 3.2.
    """

    variance: Variance = field(default=fixed_small)
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        mean, _ = posterior(process, x, denoiser(x, t).x0, t, s)
        _, sigma_s = process.scales(s, x)
        variance = jnp.where(sigma_s == 0, 0.0, self.variance(process, x, t, s))
        return mean + safe_sqrt(variance) * noise(0), state
