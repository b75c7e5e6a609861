"""DPM-Solver++: the exact integral of a polynomial in log-SNR through the predicted x0.

    x_s = alpha_s (x0 + sum_k [0 .. k] J_k) + sigma_s (q noise + sqrt(1 - q^2) z)
    q = exp(-eta h),  h = l_s - l_t,  l = log(alpha / sigma)                            (1)

with the divided differences [0 .. k] of x0 in l and their integrals J_k (`exponential`).
The multistep solver takes the points from its last steps, the single-step one from inside
a block of steps that all start where the block does. Order 1 is DDIM. A step from alpha_t = 0
or to sigma_s = 0 is the DDIM step.

The form says how the integrals are made: `exact` (the Heun form of public code); `midpoint`
holds the straight line through two points at its middle; `published_third` is the third order
of public code, whose second difference has half the weight that the integral asks for: it
converges at order 2.

Source: Lu et al. 2022 (arXiv:2211.01095), Algorithms 1 and 2, and appendix B for 2M SDE.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.samplers.exponential import (
    Form,
    History,
    half_log_snr,
    increment,
    midpoint,
)
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Scalar


def published_third(h: Array, points: Scalar, rate: Scalar = 1.0) -> list[Array]:
    """`midpoint`, and with three points half of I_2."""
    moments = midpoint(h, points, rate)
    moments[2] = 0.5 * moments[2]
    return moments


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["eta"],
    meta_fields=["order", "form", "lower_order_final"],
)
@dataclass(frozen=True)
class DPMSolverPP:
    """Multistep DPM-Solver++, equation (1): one evaluation a step.

    Attributes:
        order: 1 to 3: how many points the polynomial goes through, as far as they were seen.
        form: `exact`, `midpoint` or `published_third`.
        eta: 0 is the probability flow; 1 the reverse SDE (2M SDE). Traced.
        lower_order_final: no more points than steps to come.
    """

    order: int = 2
    form: Form = field(default=midpoint)
    eta: Scalar = 0.0
    lower_order_final: bool = False
    draws = 1

    def init(self, x: Array, times: Array) -> History:
        return History.empty(self.order - 1, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        end, *nodes = (half_log_snr(process, time, x) for time in (s, t, *state.times))
        points = state.points(self.order, self.lower_order_final)
        more = increment(end, nodes, [x0, *state.values], points, self.form, 1.0 + self.eta)
        h = end - nodes[0]
        finite = jnp.isfinite(h)
        keep = jnp.exp(-self.eta * jnp.where(finite, h, 0.0))
        keep = jnp.where(finite, keep, safe_sqrt(1.0 - jnp.square(self.eta)))  # as DDIM(eta)
        alpha, sigma = process.scales(s, x)
        rest = keep * predicted + safe_sqrt(1.0 - keep**2) * noise(0)
        return alpha * (x0 + more) + sigma * rest, state.push(x0, t)


class Block(NamedTuple):
    """What the single-step solver saw in this block; the first row is the block's start."""

    values: Array  # [order, *x.shape]
    times: Array  # [order, b]
    noise: Array  # with values[0], the x where the block starts
    seen: Int[Array, ""]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[],
    meta_fields=["order", "form"],
)
@dataclass(frozen=True)
class DPMSolverPPSingle:
    """Single-step DPM-Solver++ on blocks of `order` steps: one evaluation a step.

    Step k of a block goes from the block's start to its k-th time with a polynomial through
    the k points seen, so the grid's times in a block are the solver's inner points. A grid
    uniform in log-SNR gives the paper's: 1/2 for order 2, 1/3 and 2/3 for order 3.

    Attributes:
        order: 1 to 3.
        form: `exact` or `midpoint`.
    """

    order: int = 2
    form: Form = field(default=midpoint)
    draws = 0

    def init(self, x: Array, times: Array) -> Block:
        return Block(
            values=jnp.zeros((self.order, *x.shape), x.dtype),
            times=jnp.full((self.order, x.shape[0]), times[0], x.dtype),
            noise=jnp.zeros_like(x),
            seen=jnp.array(0),
        )

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        end, here = (half_log_snr(process, time, x) for time in (s, t))
        jump = ~jnp.all(jnp.isfinite(end - here))  # the DDIM step, a block of its own
        seen = jnp.where(jump, 0, state.seen)
        values = state.values.at[seen].set(x0.astype(x.dtype))
        times = state.times.at[seen].set(t)
        start = jnp.where(seen == 0, predicted, state.noise).astype(x.dtype)
        nodes = [half_log_snr(process, time, x) for time in times]
        more = increment(end, nodes, list(values), seen + 1, self.form)
        alpha, sigma = process.scales(s, x)
        seen = jnp.where(jump, 0, (seen + 1) % self.order)
        return alpha * (values[0] + more) + sigma * start, Block(values, times, start, seen)
