"""Single-step DPM-Solver++: as the multistep one, with points from a block of steps.

    x_s = alpha_s (x0 + sum_k [0 .. k] J_k) + sigma_s (q noise + sqrt(1 - q^2) z)
    q = exp(-eta h),  h = l_s - l at the block's start                                  (1)

with x0 and the noise where the block starts, and the divided differences of x0 through the
points seen since (`exponential`). A step from alpha_t = 0 or to sigma_s = 0 is the DDIM step.

Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 1; order 3: Lu et al. 2022
(arXiv:2206.00927), section 3.2.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.samplers.exponential import (
    Form,
    check_order,
    half_log_snr,
    increment,
    midpoint,
    renewed,
)
from diffusion_jax.types import Denoiser, Scalar


class Block(NamedTuple):
    """What the single-step solver saw in this block; the first row is the block's start."""

    values: Array  # [order, *x.shape]
    times: Array  # [order, b]
    noise: Array  # with values[0], the x where the block starts
    seen: Int[Array, ""]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["eta"],
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
        eta: 0 is the probability flow; 1 the reverse SDE. Traced.
    """

    order: int = 2
    form: Form = field(default=midpoint)
    eta: Scalar = 0.0
    draws = 1

    def init(self, x: Array, times: Array) -> Block:
        check_order(self.order, 3)
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
        more = increment(end, nodes, list(values), seen + 1, self.form, 1.0 + self.eta)
        rest = renewed(start, noise(0), end - nodes[0], self.eta)
        alpha, sigma = process.scales(s, x)
        seen = jnp.where(jump, 0, (seen + 1) % self.order)
        return alpha * (values[0] + more) + sigma * rest, Block(values, times, start, seen)
