"""EDM's stochastic sampler: some noise is added, and a solver steps down from there.

In sigma-hat = sigma / alpha, from t to s in a grid of N steps:

    gamma = min(S_churn / N, sqrt(2) - 1)  if  S_tmin <= sigma-hat_t <= S_tmax,  else 0   (1)
    sigma-hat at t_hat = (1 + gamma) sigma-hat_t                                        (2)
    x_hat = r x_t + S_noise sqrt(v) z,   N(r x_t, v) the transition from t to t_hat     (3)
    x_s = the solver's step from (x_hat, t_hat) to s                                    (4)

The paper's solver is Heun's method in x / alpha over sigma-hat, whose slope is the noise:
DDIM's step, and then with the mean of the noise at both of its ends,

    x_s = ddim + alpha_s (sigma-hat_s - sigma-hat_t) (noise_s - noise_t) / 2            (5)

Source: Karras et al. 2022 (arXiv:2206.00364), Algorithms 1 and 2.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from diffusion_jax.processes import divide, expand, transition
from diffusion_jax.samplers.ends import above_data, takes_ddim
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Sampler, Scalar


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class KarrasHeun:
    """Equation (5): deterministic, of second order, two calls of the denoiser a step.

    It takes DDIM's step at alpha_t = 0 and sigma_s = 0.

    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 1.
    """

    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        first = denoiser(x, t)
        ddim = process.corrupt(first.x0, first.noise, s)
        level, _ = above_data(process, x, t, s)
        second = denoiser(ddim, level)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.scales(t, x), process.scales(s, x)
        length = sigma_s - alpha_s * divide(sigma_t, alpha_t)
        heun = ddim + 0.5 * length * (second.noise - first.noise)
        return jnp.where(takes_ddim(process, x, t, s), ddim, heun), state


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["s_churn", "s_tmin", "s_tmax", "s_noise", "solver"],
    meta_fields=[],
)
@dataclass(frozen=True)
class EDM:
    """Equations (1) to (4), on a descending grid; with s_churn = 0 it is the solver itself.

    No noise is added beyond what the process reaches at t = 1.

    Attributes:
        s_churn: how much noise is added and removed again, over the whole grid. Traced.
        s_tmin: the lowest sigma-hat at which it is.
        s_tmax: the highest.
        s_noise: the added noise's standard deviation; a little above 1 makes up for a denoiser
            that removes too much.
        solver: a one-step solver: `KarrasHeun()`, or `DDIM()`, which makes stochastic Euler.

    Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2; for their values, table 5.
    """

    s_churn: Scalar = 0.0
    s_tmin: Scalar = 0.0
    s_tmax: Scalar = math.inf
    s_noise: Scalar = 1.0
    solver: Sampler = KarrasHeun()

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
