"""What the solvers in log-SNR share: the exact integral of a polynomial in l = log(alpha/sigma).

In l, half the log SNR, the probability flow is

    d(x / sigma) = exp(l) x0 dl,    d(x / alpha) = -exp(-l) noise dl.                   (1)

From l_t to l_s = l_t + h, with x0 as a function of u = l - l_t,

    x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^h exp(u - h) x0(u) du.                (2)

A constant x0 makes DDIM of it. Newton's polynomial through what was seen at u_0 = 0, u_1, ...

    x0(u) = [0] + [0 1] u + [0 1 2] u (u - u_1) + ...                                   (3)

with divided differences [0 .. k], adds alpha_s times the sum over k of

    [0 .. k] J_k,  J_k = int_0^h exp(u - h) (u - u_0) ... (u - u_{k-1}) du              (4)

to the DDIM step. Each J_k is made of the moments

    I_k = int_0^h exp(u - h) u^k du,  I_0 = 1 - exp(-h),  I_k = h^k - k I_{k-1}.        (5)

In the noise the equations are the same ones with -l for l and alpha and sigma exchanged.
Reversing a stochastic equation that adds eta times the posterior's noise, the kernel is
(1 + eta) exp((1 + eta) (u - h)): `rate` is 1 + eta.

Sources: Lu et al. 2022 (arXiv:2211.01095), section 4; Zhang & Chen 2022 (arXiv:2204.13902).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.processes import divide
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import GaussianProcess, Scalar, Time

Form = Callable[[Array, Scalar, Scalar], list[Array]]  # (h, points, rate) -> I_0 .. I_3


def exact(h: Array, points: Scalar, rate: Scalar = 1.0) -> list[Array]:
    """I_0 .. I_3 of equation (5), whatever the number of points."""
    moments = [-jnp.expm1(-rate * h)]
    for k in (1, 2, 3):
        moments.append(h**k - k / rate * moments[-1])
    return moments


def midpoint(h: Array, points: Scalar, rate: Scalar = 1.0) -> list[Array]:
    """With two points, x0(u) is held at its value in the middle, u = h/2: I_1 = h I_0 / 2."""
    moments = exact(h, points, rate)
    moments[1] = jnp.where(points == 2, 0.5 * h * moments[0], moments[1])
    return moments


def check_order(order: int, most: int) -> None:
    """Raises ValueError unless 1 <= order <= most."""
    if not 1 <= order <= most:
        raise ValueError(f"order is {order}; this solver has orders 1 to {most}.")


def half_log_snr(process: GaussianProcess, t: Time, x: Array) -> Array:
    """l = log(alpha / sigma), rank of x: -inf where alpha = 0, +inf where sigma = 0.

    From the scales, so that it is right for every frequency; finite gradients at both ends.
    """
    alpha, sigma = process.scales(t, x)
    log_alpha = jnp.log(jnp.where(alpha == 0, 1.0, alpha))
    log_sigma = jnp.log(jnp.where(sigma == 0, 1.0, sigma))
    return jnp.where(alpha == 0, -jnp.inf, jnp.where(sigma == 0, jnp.inf, log_alpha - log_sigma))


def increment(
    end: Array,
    nodes: Sequence[Array],
    values: Sequence[Array],
    points: Scalar,
    form: Form = exact,
    rate: Scalar = 1.0,
) -> Array:
    """What (3) adds to the constant, integrated by (2); 0 where the step has an infinite end.

    Args:
        end: l_s.
        nodes: l where the values were seen; the first is l_t.
        values: the prediction at each node.
        points: how many of the nodes to use, from the first; may be traced.
        form: the moments.
        rate: 1 + eta.
    """
    usable = jnp.isfinite(end - nodes[0])
    moments = form(jnp.where(usable, end - nodes[0], 1.0), points, rate)
    u = [jnp.zeros_like(end)]
    basis = [jnp.ones_like(end)]  # coefficients of prod_{j<k} (u - u_j), the constant first
    column = [values[0]]  # [k], [k-1 k], ..., [0 .. k]
    total = jnp.zeros_like(values[0])
    for k in range(1, len(nodes)):
        offset = nodes[k] - nodes[0]
        usable = usable & jnp.isfinite(offset) & (k < points)
        u.append(jnp.where(usable, offset, 0.0))
        earlier, column = column, [values[k]]
        for j in range(k - 1, -1, -1):
            column.append(divide(column[-1] - earlier[k - 1 - j], u[k] - u[j]))
        raised, lowered = [jnp.zeros_like(end), *basis], [*basis, jnp.zeros_like(end)]
        basis = [a - u[k - 1] * b for a, b in zip(raised, lowered, strict=True)]
        integral = sum(c * moment for c, moment in zip(basis, moments, strict=False))
        total = total + jnp.where(usable, column[-1] * integral, 0.0)
    return total


def renewed(noise: Array, z: Array, h: Array, eta: Scalar) -> Array:
    """q noise + sqrt(1 - q^2) z with q = exp(-eta h): what the reverse SDE leaves of the noise.

    For an infinite h, q is that of `DDIM(eta)`.
    """
    finite = jnp.isfinite(h)
    keep = jnp.exp(-eta * jnp.where(finite, h, 0.0))
    keep = jnp.where(finite, keep, safe_sqrt(1.0 - jnp.square(eta)))
    return keep * noise + safe_sqrt(1.0 - keep**2) * z


class History(NamedTuple):
    """The last predictions of a multistep solver, newest first, and where in the walk it is."""

    values: Array  # [k, *x.shape]
    times: Array  # [k, b]
    done: Int[Array, ""]  # steps made
    left: Int[Array, ""]  # steps to come, this one included

    @classmethod
    def empty(cls, depth: int, x: Array, times: Array) -> "History":
        return cls(
            values=jnp.zeros((depth, *x.shape), x.dtype),
            times=jnp.full((depth, x.shape[0]), times[0], x.dtype),
            done=jnp.array(0),
            left=jnp.array(times.shape[0] - 1),
        )

    def push(self, value: Array, t: Time) -> "History":
        """This step's prediction in front, the oldest dropped."""
        values = jnp.concatenate([value[None].astype(self.values.dtype), self.values])
        times = jnp.concatenate([t[None], self.times])
        depth = len(self.values)
        return History(values[:depth], times[:depth], self.done + 1, self.left - 1)

    def points(self, order: int, lower_order_final: bool) -> Array:
        """min(order, what was seen); with `lower_order_final`, at most the steps to come."""
        points = jnp.minimum(order, self.done + 1)
        return jnp.minimum(points, self.left) if lower_order_final else points
