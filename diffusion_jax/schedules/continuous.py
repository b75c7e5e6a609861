"""Schedules in closed form.

Variance preserving, alpha^2 + sigma^2 = 1:

    cosine        alpha = cos(t pi/2),  sigma = sin(t pi/2)                             (1)
    sigmoid       sigma^2 = (s(u_t) - s(u_0)) / (s(u_1) - s(u_0)),  s the sigmoid,
                  u_t = (start + t (end - start)) / temperature                         (2)
    linear VP     log alpha = -t beta_min / 2 - t^2 (beta_max - beta_min) / 4           (3)

with less noise, a straight line, and noise that is added to data that never shrink:

    sub-VP        alpha as in (3),  sigma = 1 - alpha^2                                 (4)
    rectified     sigma = shift t / (1 - t + shift t),  alpha = 1 - sigma               (5)
    VE            alpha = 1,  sigma^2 = sigma_min^2 (r^(2t) - 1),
                  r = sigma_max / sigma_min                                             (6)
    Karras        alpha = 1,  sigma^2 = sigma_min^2 ((1 + t q)^(2 rho) - 1),
                  q = r^(1/rho) - 1                                                     (7)

(6) and (7) are their papers' noise levels with the variance sigma_min^2 taken off at every
time, so that t = 0 is clean data; (6) is the limit of (7) for rho to infinity.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.schedules.base import at_least_float32, safe_sqrt


@dataclass(frozen=True)
class Cosine:
    """The continuous cosine, equation (1): lambda(t) = -2 log tan(t pi/2).

    alpha is computed as sin((1 - t) pi/2), which is exactly 0 at t = 1, where float32's
    cos(pi/2) is -4e-8.

    Source: Nichol & Dhariwal 2021 without offset; Salimans & Ho 2022 (arXiv:2202.00512).
    """

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sin((1.0 - at_least_float32(t)) * (jnp.pi / 2))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sin(at_least_float32(t) * (jnp.pi / 2))


@dataclass(frozen=True)
class Sigmoid:
    """alpha^2 falls along a sigmoid, equation (2).

    A difference of sigmoids is sinh((u - w)/2) / (2 cosh(u/2) cosh(w/2)), so

        alpha^2 : sigma^2 = sinh((1 - t) d) cosh(u_0/2) : sinh(t d) cosh(u_1/2),
        d = (u_1 - u_0) / 2,

    in which both ends are exact and nothing cancels.

    Source: Jabri et al. 2022 (arXiv:2212.11972); Chen 2023 (arXiv:2301.10972), section 2.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0

    def __post_init__(self):
        if not (self.start < self.end and self.temperature > 0):
            raise ValueError(
                f"Sigmoid: start is {self.start}, end is {self.end} and temperature is "
                f"{self.temperature}; start < end and a temperature above 0 are needed."
            )

    def _parts(self, t) -> tuple[Array, Array]:
        t = at_least_float32(t)
        u_0, u_1 = self.start / self.temperature, self.end / self.temperature
        d = (u_1 - u_0) / 2
        signal = jnp.sinh((1.0 - t) * d) * math.cosh(u_0 / 2)
        return signal, jnp.sinh(t * d) * math.cosh(u_1 / 2)

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        signal, noise = self._parts(t)
        return safe_sqrt(signal / (signal + noise))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        signal, noise = self._parts(t)
        return safe_sqrt(noise / (signal + noise))


def _check_vp(name: str, low: float, high: float) -> None:
    if not 0 <= low <= high or high == 0:
        raise ValueError(
            f"{name}: beta_min is {low} and beta_max is {high}; rates of noise need "
            "0 <= beta_min <= beta_max, and beta_max above 0."
        )


def _log_alpha_bar(t, low: float, high: float) -> Array:
    """-int_0^t beta(u) du = 2 log alpha, for beta from `low` to `high` in a straight line."""
    t = at_least_float32(t)
    return -t * (low + 0.5 * (high - low) * t)


@dataclass(frozen=True)
class LinearVP:
    """The VP-SDE dx = -beta(t) x dt / 2 + sqrt(beta(t)) dw with a linear beta, equation (3).

    Source: Song et al. 2021 (arXiv:2011.13456), equations (32), (33).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        _check_vp("LinearVP", self.beta_min, self.beta_max)

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.exp(0.5 * _log_alpha_bar(t, self.beta_min, self.beta_max))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return safe_sqrt(-jnp.expm1(_log_alpha_bar(t, self.beta_min, self.beta_max)))


@dataclass(frozen=True)
class SubVP:
    """The sub-VP SDE, equation (4): its variance lies below the VP-SDE's at every time.

    Source: Song et al. 2021 (arXiv:2011.13456), equations (27), (29).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        _check_vp("SubVP", self.beta_min, self.beta_max)

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.exp(0.5 * _log_alpha_bar(t, self.beta_min, self.beta_max))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return -jnp.expm1(_log_alpha_bar(t, self.beta_min, self.beta_max))


@dataclass(frozen=True)
class Rectified:
    """The straight line from data to noise, equation (5).

    Attributes:
        shift: above 1 spends more of the time at high noise, which larger pictures need: m
            times the pixels ask for sqrt(m) times the shift. 1 is sigma = t.

    Source: Liu et al. 2022 (arXiv:2209.03003); Lipman et al. 2022 (arXiv:2210.02747); the
    shift from Esser et al. 2024 (arXiv:2403.03206), equation (23).
    """

    shift: float = 1.0

    def __post_init__(self):
        if not self.shift > 0:
            raise ValueError(f"Rectified: shift is {self.shift}; it must be above 0.")

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        t = at_least_float32(t)
        return (1.0 - t) / ((1.0 - t) + self.shift * t)

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        t = at_least_float32(t)
        return self.shift * t / ((1.0 - t) + self.shift * t)


def _check_levels(name: str, low: float, high: float) -> None:
    if not 0 < low < high:
        raise ValueError(
            f"{name}: sigma_min is {low} and sigma_max is {high}; noise levels need "
            "0 < sigma_min < sigma_max."
        )


@dataclass(frozen=True)
class VE:
    """Noise levels in a geometric progression, equation (6).

    It ends at sigma(1)^2 = sigma_max^2 - sigma_min^2, which is noise for data of unit scale
    where sigma_max is 10 or more.

    Source: Song et al. 2021 (arXiv:2011.13456), equations (30), (31).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self):
        _check_levels("VE", self.sigma_min, self.sigma_max)

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.ones_like(at_least_float32(t))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        rate = 2.0 * math.log(self.sigma_max / self.sigma_min)
        return self.sigma_min * safe_sqrt(jnp.expm1(rate * at_least_float32(t)))


@dataclass(frozen=True)
class KarrasVE:
    """Noise levels even in their rho-th root, EDM's, equation (7).

    At t the paper's level is (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,
    and sigma(t)^2 is its square less sigma_min^2. So a uniform grid of times is close to the
    paper's grid of levels, `dj.karras` walks exactly on it, and data are clean at t = 0.

    Source: Karras et al. 2022 (arXiv:2206.00364), equation (5) and table 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self):
        _check_levels("KarrasVE", self.sigma_min, self.sigma_max)
        if not self.rho > 0:
            raise ValueError(f"KarrasVE: rho is {self.rho}; it must be above 0.")

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.ones_like(at_least_float32(t))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        q = math.expm1(math.log(self.sigma_max / self.sigma_min) / self.rho)
        log_level = self.rho * jnp.log1p(q * at_least_float32(t))
        return self.sigma_min * safe_sqrt(jnp.expm1(2.0 * log_level))
