"""PNDM: linear multistep and Runge-Kutta methods with DDIM in place of the straight line.

A step with the noise n moves x as DDIM would, `along`. Once four noises were seen,

    n = (55 n_0 - 59 n_1 + 37 n_2 - 9 n_3) / 24                                         (1)

and before, Adams and Bashforth's formulas of fewer points. `PNDM` makes its first three steps
by the pseudo Runge-Kutta method (PRK), `PLMS` its first by the improved Euler method.
The coefficients assume equal steps in t.

Source: Liu et al. 2022 (arXiv:2202.09778), equations (12) and (13), section 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.samplers.exponential import History
from diffusion_jax.samplers.heun import along
from diffusion_jax.types import Denoiser, Prediction

Start = Callable[..., Array]  # (x, prediction, t, s, denoiser, process) -> n

_ADAMS_BASHFORTH = np.array([[24, 0, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]])


def multistep(newest: Array, history: History) -> Array:
    """n of equation (1), or of the formula for as many noises as were seen."""
    row = jnp.asarray(_ADAMS_BASHFORTH / 24, newest.dtype)[history.points(4, False) - 1]
    return row[0] * newest + jnp.tensordot(row[1:], history.values, 1)


def improved_euler(x, prediction: Prediction, t, s, denoiser: Denoiser, process) -> Array:
    """The mean of the noise at both ends of a DDIM step."""
    n = prediction.noise
    return 0.5 * (n + denoiser(along(process, x, prediction, n, t, s), s).noise)


def runge_kutta(x, prediction: Prediction, t, s, denoiser: Denoiser, process) -> Array:
    """n = (n_1 + 2 n_2 + 2 n_3 + n_4) / 6, at t, twice at the middle, and at s."""
    middle = 0.5 * (t + s)
    n = total = prediction.noise
    for time, weight in ((middle, 2), (middle, 2), (s, 1)):
        n = denoiser(along(process, x, prediction, n, t, time), time).noise
        total = total + weight * n
    return total / 6


def _step(start: Start, warmup: int, x, history: History, t, s, denoiser: Denoiser, process):
    here = denoiser(x, t)
    n = jax.lax.cond(
        history.done < warmup,
        lambda: start(x, here, t, s, denoiser, process),
        lambda: multistep(here.noise, history),
    )
    return along(process, x, here, n, t, s), history.push(here.noise, t)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class PNDM:
    """F-PNDM: three Runge-Kutta steps of four evaluations, then one evaluation a step."""

    draws = 0

    def init(self, x: Array, times: Array) -> History:
        return History.empty(3, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        return _step(runge_kutta, 3, x, state, t, s, denoiser, process)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class PLMS:
    """S-PNDM's start: one improved Euler step of two evaluations, then one a step.

    The order grows with the noises seen: 2, 3, 4.
    """

    draws = 0

    def init(self, x: Array, times: Array) -> History:
        return History.empty(3, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        return _step(improved_euler, 1, x, state, t, s, denoiser, process)
