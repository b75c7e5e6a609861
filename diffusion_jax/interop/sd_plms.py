"""PLMS as diffusers has it for v-prediction: v is extrapolated, and not the noise.

    v = (55 v_0 - 59 v_1 + 37 v_2 - 9 v_3) / 24,  n = alpha_t v + sigma_t x_t           (1)

and x_s is the DDIM step with the noise n and the x0 that goes with it. alpha, sigma and x of (1)
are those where the step begins, so that the method is of first order only: it is here for
checkpoints whose scheduler_config.json names it. `PLMS` extrapolates the noise, and is of higher
order.

Source: diffusers' PNDMScheduler with prediction_type "v_prediction"; Liu et al. 2022
(arXiv:2202.09778), equation (12), for the formula.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.parameterizations import V
from diffusion_jax.samplers.exponential import History
from diffusion_jax.samplers.pndm import multistep
from diffusion_jax.types import Denoiser, GaussianProcess, Time


def _velocity(denoiser: Denoiser, process: GaussianProcess, x: Array, t: Time) -> Array:
    x0, noise, _ = denoiser(x, t)
    alpha, sigma = process.scales(t, x)
    return alpha * noise - sigma * x0


def _along(process: GaussianProcess, x: Array, v: Array, t: Time, s: Time) -> Array:
    """The DDIM step with v in place of the network's."""
    x0, noise, _ = process.solve(x, t, v, *V().coefficients(process, t, x))
    return process.corrupt(x0, noise, s)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class VelocityPLMS:
    """Equation (1): the first step with the mean of v at both its ends, then one evaluation a step.

    For variance preserving processes.
    """

    draws = 0

    def init(self, x: Array, times: Array) -> History:
        return History.empty(3, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        v = _velocity(denoiser, process, x, t)

        def first() -> Array:
            there = _velocity(denoiser, process, _along(process, x, v, t, s), s)
            return 0.5 * (v + there)

        mean = jax.lax.cond(state.done < 1, first, lambda: multistep(v, state))
        return _along(process, x, mean, t, s), state.push(v, t)
