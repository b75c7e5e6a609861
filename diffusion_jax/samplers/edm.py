"""EDM's stochastic sampler: churn adds some noise, and a solver steps down from there.

In sigma-hat = sigma / alpha, from t to s in a grid of N steps:

    gamma = min(S_churn / N, sqrt(2) - 1)  if  S_tmin <= sigma-hat_t <= S_tmax,  else 0   (1)
    sigma-hat at t_hat = (1 + gamma) sigma-hat_t                                        (2)
    x_hat = r x_t + S_noise sqrt(v) z,   N(r x_t, v) the transition from t to t_hat     (3)
    x_s = the solver's step from (x_hat, t_hat) to s                                    (4)

The paper's solver is `Heun`.

Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from diffusion_jax.processes import expand, transition
from diffusion_jax.samplers.heun import Heun
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Sampler, Scalar


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["s_churn", "s_tmin", "s_tmax", "s_noise", "solver"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Churn:
    """Equations (1) to (4), on a descending grid; with s_churn = 0 it is the solver itself.

    No noise is added beyond what the process reaches at t = 1.

    Attributes:
        s_churn: how much noise is added and removed again, over the whole grid. Traced.
        s_tmin: the lowest sigma-hat at which it is.
        s_tmax: the highest.
        s_noise: the added noise's standard deviation; a little above 1 makes up for a denoiser
            that removes too much.
        solver: a one-step solver: `Heun()`, or `DDIM()`, which makes stochastic Euler.

    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2; for their values, table 5.
    """

    s_churn: Scalar = 0.0
    s_tmin: Scalar = 0.0
    s_tmax: Scalar = math.inf
    s_noise: Scalar = 1.0
    solver: Sampler = Heun()

    @property
    def draws(self) -> int:
        return 1 + self.solver.draws

    def init(self, x: Array, times: Array) -> tuple[Array, PyTree]:
        return jnp.asarray(times.shape[0] - 1, x.dtype), self.solver.init(x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        steps, solver_state = state
        log_level = -0.5 * process.log_snr(t)
        inside = (jnp.exp(log_level) >= self.s_tmin) & (jnp.exp(log_level) <= self.s_tmax)
        gamma = jnp.where(inside, jnp.minimum(self.s_churn / steps, math.sqrt(2) - 1), 0.0)
        raised = process.time_at(-2.0 * (log_level + jnp.log1p(gamma)))
        t_hat = jnp.where(gamma > 0, jnp.maximum(raised, t), t)

        r, v = transition(process, t, t_hat, x)
        noised = r * x + self.s_noise * safe_sqrt(v) * noise(0)
        x_hat = jnp.where(expand(t_hat > t, x), noised, x)
        x, solver_state = self.solver.step(
            x_hat, solver_state, t_hat, s, denoiser, process, lambda j: noise(1 + j)
        )
        return x, (steps, solver_state)
