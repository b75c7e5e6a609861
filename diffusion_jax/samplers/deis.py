"""DEIS: the exact integral of a polynomial through the predicted noise.

    x_s = alpha_s x0 + sigma_s (noise + sum_k [0 .. k] J_k)                             (1)

with the divided differences of the noise in rho = log(sigma / alpha), half the negative log
SNR, and their integrals J_k under exp(rho). It is the multistep DPM-Solver in the noise. A step
from alpha_t = 0 or to sigma_s = 0 is the DDIM step.

Source: Zhang & Chen 2022 (arXiv:2204.13902), proposition 3, with the polynomial in log rho.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.samplers.exponential import History, check_order, half_log_snr, increment
from diffusion_jax.types import Denoiser


@partial(
    jax.tree_util.register_dataclass, data_fields=[], meta_fields=["order", "lower_order_final"]
)
@dataclass(frozen=True)
class DEIS:
    """DEIS of order 1 to 4, equation (1): one evaluation a step.

    Attributes:
        order: how many points the polynomial goes through, as far as they were seen.
        lower_order_final: no more points than steps to come.
    """

    order: int = 3
    lower_order_final: bool = False
    draws = 0

    def init(self, x: Array, times: Array) -> History:
        check_order(self.order, 4)
        return History.empty(self.order - 1, x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        end, *nodes = (-half_log_snr(process, time, x) for time in (s, t, *state.times))
        points = state.points(self.order, self.lower_order_final)
        more = increment(end, nodes, [predicted, *state.values], points)
        return process.corrupt(x0, predicted + more, s), state.push(predicted, t)
