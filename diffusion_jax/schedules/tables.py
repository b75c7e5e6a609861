"""Discrete tables of betas as schedules.

    abar_k = prod_{i <= k} (1 - beta_i),  alpha^2 = abar_k,  sigma^2 = 1 - abar_k
             at t = (k + 1)/T                                                           (1)

t = 0 is clean data, and between entries log abar is linear in t. A table whose last entry
still has some signal is rescaled to have none:

    alpha'_k = alpha_0 (alpha_k - alpha_{T-1}) / (alpha_0 - alpha_{T-1})                (2)
"""

import functools
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.schedules.base import at_least_float32, safe_sqrt


def _interpolate(values: np.ndarray, t: Array) -> Array:
    """The values [T + 1] at 0, 1/T, ..., 1, linear between them, exact at both ends."""
    steps = len(values) - 1
    table = jnp.asarray(values, t.dtype)
    k = jnp.clip(jnp.floor(t * steps), 0, steps - 1).astype(int)
    share = t * steps - k
    return (1.0 - share) * table[k] + share * table[k + 1]


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
        return _interpolate(_entries(self), at_least_float32(t))

    def alpha(self, t: Array) -> Array:
        return jnp.exp(0.5 * self.log_alpha_bar(t))

    def sigma(self, t: Array) -> Array:
        return safe_sqrt(-jnp.expm1(self.log_alpha_bar(t)))


def _entries(table: Any) -> np.ndarray:
    """log abar at t = 0, 1/T, ..., 1, float64 [T + 1]; any frozen table hashes."""
    return _cached_entries(table)


@functools.lru_cache(maxsize=64)
def _cached_entries(table: Any) -> np.ndarray:
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
class Sqrt(BetaTable):
    """abar_k = 1 - sqrt((k + 1)/T + offset), with the last beta clipped below 1.

    The first beta is large: noise of standard deviation (1/T + offset)^(1/4), 0.18, at once, which
    data that lie on isolated points (word embeddings) don't notice. The paper takes T = 2000.

    Source: Li et al. 2022 (arXiv:2205.14217), appendix A.
    """

    steps: int = 1000
    offset: float = 1e-4
    max_beta: float = 0.999

    def __post_init__(self):
        _check_betas("Sqrt", self.steps, self.max_beta, self.max_beta)
        if not 0 <= self.offset < 1 / self.steps:
            raise ValueError(
                f"Sqrt: offset is {self.offset}; it must be at least 0 and below 1/steps."
            )

    def betas(self) -> np.ndarray:
        k = np.arange(1, self.steps + 1, dtype=np.float64) / self.steps
        f = np.append(1.0, 1 - np.sqrt(k + self.offset))
        return np.minimum(1 - f[1:] / f[:-1], self.max_beta)


@dataclass(frozen=True)
class ZeroTerminalSNR:
    """Another table rescaled to end in pure noise, equation (2): alpha(1) = 0 exactly.

    Up to the first entry, which (2) keeps, it is the other table; after it alpha is the
    other's, shifted and stretched. The network must predict something that has x_0 at t = 1:
    v or x0, not noise.

    Source: Lin et al. 2023 (arXiv:2305.08891), Algorithm 1.
    """

    table: BetaTable = ScaledLinearBeta()

    def __post_init__(self):
        if len(self.table.betas()) < 2:
            raise ValueError(f"ZeroTerminalSNR: {self.table} has fewer than 2 entries.")

    def betas(self) -> np.ndarray:
        """The rescaled table, float64, shape [T]; its last beta is 1."""
        alpha = np.exp(0.5 * _entries(self.table)[1:])
        alpha = alpha[0] * (alpha - alpha[-1]) / (alpha[0] - alpha[-1])
        return 1 - (alpha / np.append(1.0, alpha[:-1])) ** 2

    def _parts(self, t) -> tuple[Array, Array, Array, Array]:
        """log abar of the other table, whether t is up to its first entry, alpha', 1 - alpha'."""
        t = at_least_float32(t)
        values = _entries(self.table)
        first, last = (float(a) for a in np.exp(0.5 * values[[1, -1]]))
        stretch = first / (first - last)
        # Relative to the last entry, alpha - alpha(1) is exactly 0 at t = 1.
        other = _interpolate(values, t)
        above = last * jnp.expm1(0.5 * _interpolate(values - values[-1], t))
        alpha = stretch * above
        # 1 - alpha' without cancellation where alpha' is near 1.
        near = (1 - stretch * (1 - last)) - stretch * jnp.expm1(0.5 * other)
        below = jnp.where(alpha < 0.5, 1.0 - alpha, near)
        return other, t * (len(values) - 1) <= 1, alpha, below

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        other, first, alpha, _ = self._parts(t)
        return jnp.where(first, jnp.exp(0.5 * other), alpha)

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        other, first, alpha, below = self._parts(t)
        return safe_sqrt(jnp.where(first, -jnp.expm1(other), below * (1.0 + alpha)))
