"""Parameterizations: what a network predicts, y = a x_0 + b noise.

    X0        a = 1        b = 0            Noise     a = 0        b = 1
    V         a = -sigma   b = alpha        Score     a = 0        b = -1/sigma
    Velocity  a = alpha'   b = sigma'       (the derivatives in t)

`process.solve` turns any of them into a Prediction, so none needs a converter to another.
With det = alpha b - sigma a, the squared error of y is (det / sigma)^2 times that of x_0
and (det / alpha)^2 times that of the noise.

Sources: Ho et al. 2020 (noise); Salimans & Ho 2022, arXiv:2202.00512 (v); Song et al. 2021,
arXiv:2011.13456 (score); Lipman et al. 2022, arXiv:2210.02747 (velocity).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide, expand
from diffusion_jax.types import GaussianProcess, Parameterization, Process, Time


@dataclass(frozen=True)
class X0:
    """The network predicts the clean example, for processes without scales too (`Cold`)."""

    def coefficients(self, process: Process, t: Time, x: Array) -> tuple[Array, Array]:
        one = jnp.ones_like(expand(t, x))
        return one, jnp.zeros_like(one)


@dataclass(frozen=True)
class Noise:
    """The network predicts the noise, epsilon of DDPM."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return jnp.zeros_like(alpha), jnp.ones_like(sigma)


@dataclass(frozen=True)
class V:
    """The network predicts v = alpha noise - sigma x_0, which is defined at both ends."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return -sigma, alpha


@dataclass(frozen=True)
class Score:
    """The network predicts grad log q(x_t | x_0) = -noise / sigma; it has none at sigma = 0."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return jnp.zeros_like(alpha), divide(-jnp.ones_like(sigma), sigma)


@dataclass(frozen=True)
class Velocity:
    """The network predicts dx_t/dt = alpha' x_0 + sigma' noise (flow matching)."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        _, derivatives = jax.jvp(lambda t: process.scales(t, x), (t,), (jnp.ones_like(t),))
        return derivatives


def target(
    parameterization: Parameterization,
    process: GaussianProcess,
    x0: Array,
    noise: Array,
    t: Time,
) -> Array:
    """What the network should say: y = a x0 + b noise, the shape of x0."""
    a, b = parameterization.coefficients(process, t, x0)
    return a * x0 + b * noise
