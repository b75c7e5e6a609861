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

(2) to (4) are elementwise, so they hold for every frequency or pixel by itself where alpha and
sigma differ among them (`spectral.py`).

Sources: Ho et al. 2020 (arXiv:2006.11239), (2), (4), (6), (7); Kingma et al. 2021
(arXiv:2107.00630), appendix A.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

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


def terminal_snr(schedule: Schedule) -> float | None:
    """alpha(1)^2 / sigma(1)^2; None for a learned schedule inside jit, which has no value yet."""
    with jax.ensure_compile_time_eval():  # inside jit, `end` too would be traced
        end = jnp.ones(())
        snr = (schedule.alpha(end) / schedule.sigma(end)) ** 2
    return None if isinstance(snr, jax.core.Tracer) else float(snr)


def pure_noise(process: "Scaled", noise: Array, most: float, remedy: str) -> Array:
    """sigma(1) noise, if the schedule leaves at most this signal-to-noise ratio at t = 1.

    Raises:
        ValueError: it leaves more; the message ends in the remedy.
    """
    snr = terminal_snr(process.schedule)
    # The limit is a round number: VE with sigma_max = 10 may miss it by a rounding.
    if snr is not None and snr > 1.001 * most:
        raise ValueError(
            f"{process} doesn't end in noise: its signal-to-noise ratio at t = 1 is {snr:.3g}, "
            f"and at most {most:.3g} is allowed; {remedy}"
        )
    return process.schedule.sigma(jnp.ones(())) * noise


@runtime_checkable
class Scaled(Protocol):
    """The algebra of every process with x = alpha x0 + sigma noise, whatever its `scales`."""

    schedule: Schedule

    def scales(self, t: Time, x: Array) -> tuple[Array, Array]:
        """(alpha_t, sigma_t) with the rank of x."""
        ...

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


@dataclass(frozen=True)
class Gaussian(Scaled):
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
        remedy = (
            "use more steps or larger betas, or allow it with "
            "Gaussian(schedule, max_terminal_snr=...)."
        )
        return pure_noise(self, noise, self.max_terminal_snr, remedy)


@runtime_checkable
class Degradation(Protocol):
    """D(x0, noise, t) in pixels, D(x0, noise, 0) = x0 exactly; noise is its only randomness.

    `random` says whether it reads the noise.
    """

    @property
    def random(self) -> bool: ...
    def __call__(self, x0: Array, noise: Array, t: Time) -> Array: ...


@dataclass(frozen=True)
class Cold:
    """x_t = D(x_0, noise, t), with no noise or with one that stays the same.

    A network for it predicts x_0 (`X0`); a Prediction's noise is the degradation's randomness.

    Attributes:
        degradation: D.
        noise: the randomness of the examples at hand, [b h w c], which sampling from a random
            degradation has to know: `dataclasses.replace(process, noise=...)`.

    Source: Bansal et al. 2022 (arXiv:2208.09392), section 3.
    """

    degradation: Degradation
    noise: Array | None = field(default=None, compare=False, repr=False)

    def encode(self, pixels: Array) -> Array:
        """The identity."""
        return pixels

    def decode(self, x: Array) -> Array:
        """The identity."""
        return x

    def prior(self, noise: Array) -> Array:
        """Refuses: x_1 is a degraded picture.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self} doesn't end in noise: x_1 is a degraded picture; start from data that are "
            "degraded at t = 1, in a recipe by terminal=Degraded(), or from a fit of them."
        )

    def corrupt(self, x0: Array, noise: Array, t: Time) -> Array:
        """D(x0, noise, t)."""
        return self.degradation(x0, noise, t)

    def solve(self, x: Array, t: Time, y: Array, a: Array, b: Array) -> Prediction:
        """y is x0."""
        return self.complete(x, t, y)

    def complete(self, x: Array, t: Time, x0: Array) -> Prediction:
        """The Prediction with this x0 and the noise of the examples at hand.

        Raises:
            ValueError: the degradation is random, and the process doesn't know its noise.
        """
        if self.noise is None and self.degradation.random:
            raise ValueError(
                f"{self.degradation} is random, and its noise isn't known: give it with "
                "dataclasses.replace(process, noise=...), as it was when x_1 was made."
            )
        return Prediction(x0, jnp.zeros_like(x) if self.noise is None else self.noise)


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
