"""UniPC: a multistep predictor, and a corrector that takes the next evaluation into account.

The predictor of order p goes through p points of x0 in log-SNR. The corrector makes the same
step again with p + 1 points, the new one among them, before the next step starts: no more
evaluations, one order more. Both are the exact integrals of `exponential`, but with two points
the slope has the weight h B(h) / 2 in place of I_1:

    bh1: B = h,  bh2: B = 1 - exp(-h).                                                  (1)

A step from alpha_t = 0 or to sigma_s = 0 is the DDIM step.

Source: Zhao et al. 2023 (arXiv:2302.04867), Algorithms 1 and 2, for the prediction of x0.
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
    check_order,
    exact,
    half_log_snr,
    increment,
    midpoint,
)
from diffusion_jax.types import Denoiser, Scalar

bh2 = midpoint  # h (1 - exp(-h)) / 2 is the midpoint's weight


def bh1(h: Array, points: Scalar, rate: Scalar = 1.0) -> list[Array]:
    """With two points the slope has the weight h^2 / 2."""
    moments = exact(h, points, rate)
    moments[1] = jnp.where(points == 2, 0.5 * rate * h**2, moments[1])
    return moments


class Corrected(NamedTuple):
    """The x that the last step started from, its points, and the predictions before."""

    x: Array
    points: Int[Array, ""]
    history: History


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[],
    meta_fields=["order", "form", "corrector", "lower_order_final"],
)
@dataclass(frozen=True)
class UniPC:
    """UniPC of order 1 to 3; with its corrector one order more.

    Attributes:
        order: of the predictor, as far as points were seen.
        form: `bh1` or `bh2`, equation (1).
        corrector: whether to correct; without, it is the predictor UniP.
        lower_order_final: no more points than steps to come.
    """

    order: int = 2
    form: Form = field(default=bh2)
    corrector: bool = True
    lower_order_final: bool = False
    draws = 0

    def init(self, x: Array, times: Array) -> Corrected:
        check_order(self.order, 3)
        return Corrected(x, jnp.array(1), History.empty(self.order, x, times))

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x0, predicted, _ = denoiser(x, t)
        history = state.history
        end, here, *past = (half_log_snr(process, v, x) for v in (s, t, *history.times))
        if self.corrector:
            values = [history.values[0], x0, *history.values[1:]]
            nodes = [past[0], here, *past[1:]]
            more = increment(here, nodes, values, state.points + 1, self.form)
            before = process.complete(state.x, history.times[0], values[0])
            alpha, _ = process.scales(t, x)
            again = process.corrupt(before.x0, before.noise, t) + alpha * more
            x = jnp.where(history.done > 0, again, x)
            predicted = jnp.where(history.done > 0, process.complete(x, t, x0).noise, predicted)
        points = history.points(self.order, self.lower_order_final)
        values, nodes = [x0, *history.values[:-1]], [here, *past[:-1]]
        alpha, _ = process.scales(s, x)
        more = increment(end, nodes, values, points, self.form)
        x_s = process.corrupt(x0, predicted, s) + alpha * more
        return x_s, Corrected(x, points, history.push(x0, t))
