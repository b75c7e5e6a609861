"""Multistep consistency sampling: jump to the data, noise again, jump again.

    x_s = r f(x_t, t) + sqrt(v) z,   N(r x, v) the transition from `end` to s           (1)

f(x_t, t) is where the probability-flow ODE takes x_t at the time `end`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand, transition
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=["end"], meta_fields=[])
@dataclass(frozen=True)
class Consistency:
    """Equation (1); at s <= end it is f(x_t, t) itself.

    The denoiser is a consistency function: its x0 is f. (A usual denoiser's x0 is the mean of
    the data given x_t, which is blurred.)

    Attributes:
        end: the time of f's answers, small: where sigma / alpha is the epsilon of the paper.

    Source: Song et al. 2023 (arXiv:2303.01469), Algorithm 1.
    """

    end: Scalar = 0.0
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0 = denoiser(x, t).x0
        end = jnp.full_like(s, self.end)
        r, v = transition(process, end, jnp.maximum(s, end), x)
        again = r * x0 + safe_sqrt(v) * noise(0)
        return jnp.where(expand(s > end, x), again, x0), state
