"""Processes: how data turns into noise, x_t = corrupt(x_0, noise, t).

The Gaussian process, for 0 <= s < t <= 1:

    marginal      q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)                            (1)
    transition    q(x_t | x_s) = N(r x_s, v I)
                  r = alpha_t / alpha_s,  v = sigma_t^2 - r^2 sigma_s^2                 (2)
    posterior     q(x_s | x_t, x_0) = N(m, w I)
                  m = r (sigma_s^2 / sigma_t^2) x_t + alpha_s (v / sigma_t^2) x_0
                  w = v sigma_s^2 / sigma_t^2                                           (3)

and the 2x2 solve for what a network says, y = a x_0 + b noise:

    det = alpha b - sigma a
    x_0 = (b x - sigma y) / det,  noise = (alpha y - a x) / det                         (4)

Sources: Ho et al. 2020 (arXiv:2006.11239), (2), (4), (6), (7); Kingma et al. 2021
(arXiv:2107.00630), appendix A.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from diffusion_jax.schedules import log_snr
from diffusion_jax.types import GaussianProcess, Prediction, Schedule, Time


def divide(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, and 0 with a zero gradient where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))


def expand(v: Shaped[Array, " b"], x: Array) -> Array:
    """v [b] with the rank of x: [b 1 ... 1]."""
    return v.reshape(v.shape + (1,) * (x.ndim - v.ndim))


@dataclass(frozen=True)
class Gaussian:
    """x_t = alpha(t) x_0 + sigma(t) noise, in pixel coordinates.

    Attributes:
        schedule: alpha(t) and sigma(t).
        max_terminal_snr: the largest alpha(1)^2 / sigma(1)^2 for which pure noise may stand
            for x_1, given data of unit scale; more is refused by `prior`. math.inf allows
            any schedule.
    """

    schedule: Schedule
    max_terminal_snr: float = 0.01

    def encode(self, pixels: Array) -> Array:
        """Pixels to the process's coordinates: the identity."""
        return pixels

    def decode(self, x: Array) -> Array:
        """The process's coordinates to pixels: the identity."""
        return x

    def scales(self, t: Time, x: Array) -> tuple[Array, Array]:
        """(alpha_t, sigma_t), each [b 1 ... 1] with the rank of x."""
        return expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)

    def prior(self, noise: Array) -> Array:
        """x_1 = sigma(1) noise.

        Raises:
            ValueError: the schedule leaves more signal at t = 1 than `max_terminal_snr`.
        """
        with jax.ensure_compile_time_eval():  # inside jit, `end` too would be traced
            end = jnp.ones(())
            snr = (self.schedule.alpha(end) / self.schedule.sigma(end)) ** 2
        # A learned schedule inside jit has no value yet.
        # The limit is a round number: VE with sigma_max = 10 may miss it by a rounding.
        highest = 1.001 * self.max_terminal_snr
        if not isinstance(snr, jax.core.Tracer) and float(snr) > highest:
            raise ValueError(
                f"{self.schedule} doesn't end in noise: its signal-to-noise ratio at t = 1 is "
                f"{float(snr):.3g}, and at most {self.max_terminal_snr:.3g} is allowed; use more "
                "steps or larger betas, or allow it with "
                "Gaussian(schedule, max_terminal_snr=...)."
            )
        return self.schedule.sigma(end) * noise

    def corrupt(self, x0: Array, noise: Array, t: Time) -> Array:
        """x_t of equation (1), the shape of x0."""
        alpha, sigma = self.scales(t, x0)
        return alpha * x0 + sigma * noise

    def solve(self, x: Array, t: Time, y: Array, a: Array, b: Array) -> Prediction:
        """The Prediction for which y = a x0 + b noise, equation (4).

        Where det = 0 it keeps what x alone determines: x0 = 0 and noise = x / sigma where
        alpha = 0; x0 = x / alpha and noise = 0 where sigma = 0.
        """
        alpha, sigma = self.scales(t, x)
        det = alpha * b - sigma * a
        return Prediction(
            x0=jnp.where(det == 0, divide(x, alpha), divide(b * x - sigma * y, det)),
            noise=jnp.where(det == 0, divide(x, sigma), divide(alpha * y - a * x, det)),
        )

    def complete(self, x: Array, t: Time, x0: Array) -> Prediction:
        """The consistent Prediction with this x0: noise = (x - alpha x0) / sigma."""
        alpha, sigma = self.scales(t, x)
        return Prediction(x0=x0, noise=divide(x - alpha * x0, sigma))

    def log_snr(self, t: Array) -> Array:
        """lambda(t) = log(alpha^2 / sigma^2), the shape of t."""
        return log_snr(self.schedule, t)

    def time_at(self, log_snr: Array) -> Array:
        """The t in [0, 1] where the log SNR falls to this value, by bisection.

        The schedule's log SNR must fall with t. Values outside its range give the nearer end.
        """
        target = jnp.asarray(log_snr)
        target = target.astype(jnp.promote_types(target.dtype, jnp.float32))

        def halve(_, interval):
            low, high = interval
            middle = 0.5 * (low + high)
            above = self.log_snr(middle) > target
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        # 64 halvings reach the spacing of the floats near t = 0 too.
        low, high = jax.lax.fori_loop(0, 64, halve, (jnp.zeros_like(target), jnp.ones_like(target)))
        return 0.5 * (low + high)


def transition(process: GaussianProcess, s: Time, t: Time, x: Array) -> tuple[Array, Array]:
    """Scale r and variance v of q(x_t | x_s), equation (2).

    Args:
        process: gives alpha and sigma.
        s: the earlier times [b].
        t: the later times [b], s <= t.
        x: only its rank (and frequencies) are read.

    Returns:
        (r, v), each with the rank of x. v is clamped at 0.
    """
    alpha_s, sigma_s = process.scales(s, x)
    alpha_t, sigma_t = process.scales(t, x)
    r = divide(alpha_t, alpha_s)
    return r, jnp.maximum(sigma_t**2 - r**2 * sigma_s**2, 0.0)


def posterior(
    process: GaussianProcess, x: Array, x0: Array, t: Time, s: Time
) -> tuple[Array, Array]:
    """Mean and variance of q(x_s | x_t, x_0), equation (3).

    Args:
        process: gives alpha and sigma.
        x: x_t.
        x0: the clean example, or a prediction of it, the shape of x.
        t: the later times [b].
        s: the earlier times [b], s <= t.

    Returns:
        (mean with the shape of x, variance with the rank of x).
    """
    alpha_s, sigma_s = process.scales(s, x)
    _, sigma_t = process.scales(t, x)
    r, v = transition(process, s, t, x)
    share = divide(sigma_s**2, sigma_t**2)
    keep = r * jnp.where(sigma_t == 0, 1.0, share)  # at t = s = 0, x is the data already
    return keep * x + alpha_s * divide(v, sigma_t**2) * x0, v * share
