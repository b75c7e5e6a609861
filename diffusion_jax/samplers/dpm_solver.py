"""Multistep DPM-Solver++: the exact integral of a polynomial in log-SNR through the predicted x0.

    x_s = alpha_s (x0 + sum_k [0 .. k] J_k) + sigma_s (q noise + sqrt(1 - q^2) z)
    q = exp(-eta h),  h = l_s - l_t,  l = log(alpha / sigma)                            (1)

with the divided differences [0 .. k] of x0 in l and their integrals J_k (`exponential`), through
points from the last steps. Order 1 is DDIM. A step from alpha_t = 0 or to sigma_s = 0 is the
DDIM step.

The form says how the integrals are made: `exact` (the Heun form of public code); `midpoint`
holds the straight line through two points at its middle; `published_third` is the third order
of public code, whose second difference has half the weight that the integral asks for: it
converges at order 2.

Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 2, and appendix B for 2M SDE.
"""

from dataclasses import dataclass, field
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.samplers.exponential import (
    Form,
    History,
    check_order,
    half_log_snr,
    increment,
    midpoint,
    renewed,
)
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
        check_order(self.order, 3)
        return History.empty(self.order - 1, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        end, *nodes = (half_log_snr(process, time, x) for time in (s, t, *state.times))
        points = state.points(self.order, self.lower_order_final)
        more = increment(end, nodes, [x0, *state.values], points, self.form, 1.0 + self.eta)
        rest = renewed(predicted, noise(0), end - nodes[0], self.eta)
        alpha, sigma = process.scales(s, x)
        return alpha * (x0 + more) + sigma * rest, state.push(x0, t)
