"""Schedules: alpha(t) and sigma(t) of x_t = alpha(t) x_0 + sigma(t) noise.

Variance preserving schedules, alpha^2 + sigma^2 = 1, t in [0, 1]:

    beta tables   alpha^2 = abar_k = prod_{i <= k} (1 - beta_i)  at  t = (k + 1)/T      (1)
    cosine        alpha = cos(t pi/2),  sigma = sin(t pi/2)                             (2)

and the straight line of rectified flow:

    rectified     alpha = 1 - t,  sigma = t                                             (3)

Everywhere alpha(0) = 1 and sigma(0) = 0 exactly, and

    log SNR       lambda(t) = 2 (log alpha(t) - log sigma(t)).                          (4)

A schedule is a frozen dataclass of numbers: it prints, compares and hashes by value, so
jit takes it as a static argument. It computes in float32, or in float64 when t is.
"""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.types import Schedule


def _at_least_float32(t) -> Array:
    t = jnp.asarray(t)
    return t.astype(jnp.promote_types(t.dtype, jnp.float32))


def safe_sqrt(x: Array) -> Array:
    """sqrt(max(x, 0)) whose gradient is 0, not infinite, at and below 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def log_snr(schedule: Schedule, t: Array) -> Array:
    """Log signal-to-noise ratio, equation (4): +inf where sigma = 0, -inf where alpha = 0.

    Args:
        schedule: gives alpha(t) and sigma(t).
        t: times in [0, 1], any shape.

    Returns:
        lambda(t) = log(alpha^2 / sigma^2), in nats, the shape of t.
    """
    return 2.0 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))


@runtime_checkable
class BetaTable(Protocol):
    """Equation (1) for a table beta_0..beta_{T-1}; a subclass says which table.

    Index k of T is t = (k + 1)/T and t = 0 is clean data. Between entries log abar is
    linear in t, so that alpha(t) has a derivative everywhere between them.

    Source: Ho et al. 2020 (arXiv:2006.11239), section 2.
    """

    def betas(self) -> np.ndarray:
        """The table, float64, shape [T]."""
        ...

    def log_alpha_bar(self, t: Array) -> Array:
        """log abar(t) = sum_{k < tT} log(1 - beta_k), the shape of t."""
        t = _at_least_float32(t)
        table = _log_alpha_bar_table(self)  # type: ignore[arg-type]  # frozen
        values, steps = jnp.asarray(table, t.dtype), len(table) - 1
        k = jnp.clip(jnp.floor(t * steps), 0, steps - 1).astype(int)
        left, right = values[k], values[k + 1]
        return left + (jnp.clip(t, 0, 1) * steps - k) * (right - left)

    def alpha(self, t: Array) -> Array:
        return jnp.exp(0.5 * self.log_alpha_bar(t))

    def sigma(self, t: Array) -> Array:
        return safe_sqrt(-jnp.expm1(self.log_alpha_bar(t)))


@functools.lru_cache(maxsize=64)
def _log_alpha_bar_table(table: Any) -> np.ndarray:
    """log abar at t = 0, 1/T, ..., 1, float64 [T + 1]."""
    return np.concatenate([[0.0], np.cumsum(np.log1p(-table.betas()))])


def _check_betas(name: str, steps: int, start: float, end: float) -> None:
    if steps < 1:
        raise ValueError(f"{name}: steps is {steps}; a table of betas needs at least 1.")
    if not 0 < start <= end < 1:
        raise ValueError(
            f"{name}: start is {start} and end is {end}; betas are variances with "
            "0 < start <= end < 1."
        )


@dataclass(frozen=True)
class LinearBeta(BetaTable):
    """beta_k from `start` to `end` in equal steps (DDPM).

    Source: Ho et al. 2020 (arXiv:2006.11239), section 4.

    >>> LinearBeta(steps=4, start=0.1, end=0.4).betas()
    array([0.1, 0.2, 0.3, 0.4])
    """

    steps: int = 1000
    start: float = 1e-4
    end: float = 0.02

    def __post_init__(self):
        _check_betas("LinearBeta", self.steps, self.start, self.end)

    def betas(self) -> np.ndarray:
        return np.linspace(self.start, self.end, self.steps, dtype=np.float64)


@dataclass(frozen=True)
class ScaledLinearBeta(BetaTable):
    """sqrt(beta_k) from sqrt(start) to sqrt(end) in equal steps (latent diffusion).

    Source: Rombach et al. 2022 (arXiv:2112.10752), released models.
    """

    steps: int = 1000
    start: float = 0.00085
    end: float = 0.012

    def __post_init__(self):
        _check_betas("ScaledLinearBeta", self.steps, self.start, self.end)

    def betas(self) -> np.ndarray:
        roots = np.linspace(self.start**0.5, self.end**0.5, self.steps, dtype=np.float64)
        return roots**2


@dataclass(frozen=True)
class CosineBeta(BetaTable):
    """The cosine table: beta_k = min(1 - f(k + 1)/f(k), max_beta).

    f(k) = cos^2((k/T + offset)/(1 + offset) pi/2). The clip keeps the last beta below 1.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation (17).
    """

    steps: int = 1000
    offset: float = 0.008
    max_beta: float = 0.999

    def __post_init__(self):
        _check_betas("CosineBeta", self.steps, self.max_beta, self.max_beta)
        if self.offset < 0:
            raise ValueError(f"CosineBeta: offset is {self.offset}; it must be at least 0.")

    def betas(self) -> np.ndarray:
        k = np.arange(self.steps + 1, dtype=np.float64) / self.steps
        f = np.cos((k + self.offset) / (1 + self.offset) * np.pi / 2) ** 2
        return np.minimum(1 - f[1:] / f[:-1], self.max_beta)


@dataclass(frozen=True)
class Cosine:
    """The continuous cosine, equation (2): lambda(t) = -2 log tan(t pi/2).

    alpha is computed as sin((1 - t) pi/2), which is exactly 0 at t = 1, where float32's
    cos(pi/2) is -4e-8.

    Source: Nichol & Dhariwal 2021 without offset; Salimans & Ho 2022 (arXiv:2202.00512).
    """

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sin((1.0 - _at_least_float32(t)) * (jnp.pi / 2))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.sin(_at_least_float32(t) * (jnp.pi / 2))


@dataclass(frozen=True)
class Rectified:
    """The straight line from data to noise, equation (3).

    Source: Liu et al. 2022 (arXiv:2209.03003); Lipman et al. 2022 (arXiv:2210.02747).
    """

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return 1.0 - _at_least_float32(t)

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return _at_least_float32(t)
