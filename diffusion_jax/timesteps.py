"""Times: where training draws t, and which grids samplers walk.

A training rule is a value called as `times(key, index, count) -> t [b]`: one key for the
step, and for each example its number in the global batch of `count`. So a draw doesn't
depend on how the batch is cut into devices or micro-batches.

A grid is a plain array of n + 1 times. The step i goes from grid[i] to grid[i + 1].
Descending grids sample, ascending ones invert.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.random import example_keys, uniform
from diffusion_jax.types import GaussianProcess, Index, Key, Time

Times = Callable[[Key, Index, int], Time]


@dataclass(frozen=True)
class Uniform:
    """t ~ U[low, high), independent for each example."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, key: Key, index: Index, count: int) -> Time:
        return self.low + (self.high - self.low) * uniform(example_keys(key, index))


@dataclass(frozen=True)
class Stratified:
    """t_i = (u + i / count) mod 1 with one u for the batch: each t uniform, together even.

    Source: Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.
    """

    low: float = 0.0
    high: float = 1.0

    def __call__(self, key: Key, index: Index, count: int) -> Time:
        u = (jax.random.uniform(key) + index / count) % 1.0
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Discrete:
    """Another rule's times moved up to the table's: t = (k + 1)/steps, k = 0..steps - 1."""

    steps: int = 1000
    times: Times = Uniform()

    def __call__(self, key: Key, index: Index, count: int) -> Time:
        k = jnp.floor(self.times(key, index, count) * self.steps)
        return jnp.clip(k + 1.0, 1.0, self.steps) / self.steps


@dataclass(frozen=True)
class HyperbolicSecant:
    """Times whose log SNR lambda has the density ~ sech(lambda / 2), cut to [low, high].

    lambda = -2 log tan(a u + b), b = arctan(e^(-high/2)), a = arctan(e^(-low/2)) - b: on the
    cosine schedule, t even in all but its ends. Other schedules train at the same noise levels.

    Attributes:
        process: finds the time of each lambda; one it never reaches gives the nearer end.
        low, high: of lambda, in nats.
        times: gives u in [0, 1).

    Source: Ho & Salimans 2022 (arXiv:2207.12598), section 2 and Algorithm 1, line 4.
    """

    process: GaussianProcess
    low: float = -20.0
    high: float = 20.0
    times: Times = Uniform()

    def __call__(self, key: Key, index: Index, count: int) -> Time:
        b = math.atan(math.exp(-self.high / 2))
        a = math.atan(math.exp(-self.low / 2)) - b
        angle = a * self.times(key, index, count) + b
        return self.process.time_at(-2.0 * jnp.log(jnp.tan(angle)))


@dataclass(frozen=True)
class LogNormal:
    """Times whose noise level sigma/alpha is log-normal: log(sigma/alpha) ~ N(mean, std^2).

    Attributes:
        process: finds the time of each level; one it never reaches gives the nearer end.
        mean, std: the paper's P_mean and P_std.
        times: gives u in [0, 1), of which the normal numbers are quantiles.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1 and section 5.
    """

    process: GaussianProcess
    mean: float = -1.2
    std: float = 1.2
    times: Times = Uniform()

    def __call__(self, key: Key, index: Index, count: int) -> Time:
        u = jnp.clip(self.times(key, index, count), 2**-24, 1 - 2**-24)
        level = self.mean + self.std * jax.scipy.special.ndtri(u)
        return self.process.time_at(-2.0 * level)


def _check(name: str, n: int, steps: int | None = None) -> None:
    if n < 1:
        raise ValueError(f"{name}: n is {n}; a grid needs at least 1 step.")
    if steps is not None and n > steps:
        raise ValueError(f"{name}: n is {n}, more than the table's {steps} steps.")


def trailing(n: int, steps: int | None = None) -> Float[Array, " {n}+1"]:
    """1, 1 - 1/n, ..., 0: starts from pure noise (recommended).

    Args:
        n: number of steps.
        steps: length T of a discrete table to round to; None leaves t continuous.

    Source: Lin et al. 2023 (arXiv:2305.08891), table 2.

    >>> trailing(4)
    Array([1.  , 0.75, 0.5 , 0.25, 0.  ], dtype=float32)
    """
    _check("trailing", n, steps)
    left = np.arange(n, -1, -1)
    # Multiplied first, so that ties are exact and round to even.
    grid = left / n if steps is None else np.round(left * steps / n) / steps
    return jnp.asarray(grid, jnp.float32)


def leading(n: int, steps: int = 1000, offset: int = 0) -> Float[Array, " {n}+1"]:
    """Every (steps // n)-th entry of the table from its first, then 0 (DDIM's habit).

    Args:
        n: number of steps.
        steps: length T of the table.
        offset: added to each index; 1 for Stable Diffusion.

    >>> leading(4)
    Array([0.751, 0.501, 0.251, 0.001, 0.   ], dtype=float32)
    """
    _check("leading", n, steps)
    k = np.arange(n - 1, -1, -1) * (steps // n) + offset
    return jnp.asarray(np.append(np.minimum(k + 1, steps) / steps, 0.0), jnp.float32)


def linspace(n: int, steps: int = 1000) -> Float[Array, " {n}+1"]:
    """n entries of the table evenly from its last to its first, then 0.

    Args:
        n: number of steps.
        steps: length T of the table.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), section 4.
    """
    _check("linspace", n, steps)
    k = np.round(np.linspace(0, steps - 1, n))[::-1]
    return jnp.asarray(np.append((k + 1) / steps, 0.0), jnp.float32)


def karras(
    n: int,
    process: GaussianProcess,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Float[Array, " {n}+1"]:
    """Times at which sigma/alpha walks evenly in its rho-th root, then 0.

    (sigma/alpha)_i = (sigma_max^(1/rho) + i/(n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

    Args:
        n: number of steps.
        process: turns each noise level into its time.
        sigma_min: lowest sigma/alpha, reached before 0.
        sigma_max: highest sigma/alpha, or the process's own at t = 1 where that is lower.
        rho: 7 puts many steps at low noise; 1 is even.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max.

    Source: Karras et al. 2022 (arXiv:2206.00364), equation (5).
    """
    _check("karras", n)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"karras: sigma_min is {sigma_min} and sigma_max is {sigma_max}; "
            "noise levels need 0 < sigma_min < sigma_max."
        )
    reached = jnp.exp(-0.5 * process.log_snr(jnp.ones(())))
    highest = jnp.minimum(sigma_max, reached) ** (1 / rho)
    levels = jnp.linspace(highest, sigma_min ** (1 / rho), n) ** rho
    return jnp.append(process.time_at(-2.0 * jnp.log(levels)), 0.0)


def quadratic(n: int, steps: int | None = None) -> Float[Array, " {n}+1"]:
    """1, ((n - 1)/n)^2, ..., (1/n)^2, 0: denser near the data.

    Args:
        n: number of steps.
        steps: length T of a discrete table to round to; None leaves t continuous.

    Source: Song et al. 2021 (arXiv:2010.02502), appendix D.2.

    >>> quadratic(4)
    Array([1.    , 0.5625, 0.25  , 0.0625, 0.    ], dtype=float32)
    """
    _check("quadratic", n, steps)
    grid = (np.arange(n, -1, -1) / n) ** 2
    if steps is not None:  # each entry of the table at most once
        grid = np.maximum(np.round(grid * steps), np.arange(n, -1, -1)) / steps
    return jnp.asarray(grid, jnp.float32)


def uniform_log_snr(
    n: int, process: GaussianProcess, *, low: float = -5.0, high: float = 3.0
) -> Float[Array, " {n}+1"]:
    """Times at which the log SNR climbs evenly from `low` to `high`.

    It ends at `high`, above t = 0: append 0 to sample data.

    Args:
        n: number of steps.
        process: turns each log SNR into its time.
        low: log SNR where the grid starts.
        high: log SNR where it ends.

    Raises:
        ValueError: not low < high.

    Source: Lu et al. 2022 (arXiv:2206.00927), section 3.4.
    """
    _check("uniform_log_snr", n)
    if not low < high:
        raise ValueError(
            f"uniform_log_snr: low is {low} and high is {high}; sampling raises the "
            "signal-to-noise ratio, low < high."
        )
    return process.time_at(jnp.linspace(low, high, n + 1))
