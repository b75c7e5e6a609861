"""Parameterizations: what a network predicts, y = a x_0 + b noise.

    X0        a = 1        b = 0            Noise     a = 0        b = 1
    V         a = -sigma   b = alpha        Score     a = 0        b = -1/sigma
    Velocity  a = alpha'   b = sigma'       (the derivatives in t)
    EDM       a = sigma / (c S)   b = -alpha c / S,   S^2 = alpha^2 c^2 + sigma^2       (1)

where c is the data's standard deviation and S that of x. `process.solve` turns any of them
into a Prediction, so none needs a converter to another. With det = alpha b - sigma a, the
squared error of y is (det / sigma)^2 times that of x_0 and (det / alpha)^2 times that of the
noise.

Sources: Ho et al. 2020 (noise); Salimans & Ho 2022, arXiv:2202.00512 (v); Song et al. 2021,
arXiv:2011.13456 (score); Lipman et al. 2022, arXiv:2210.02747 (velocity); Karras et al.
2022, arXiv:2206.00364 (EDM).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide, expand
from diffusion_jax.types import GaussianProcess, Parameterization, Process, Time


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the clean example, for processes without scales too (`Cold`)."""

    def coefficients(self, process: Process, t: Time, x: Array) -> tuple[Array, Array]:
        one = jnp.ones_like(expand(t, x))
        return one, jnp.zeros_like(one)


@dataclass(frozen=True)
class Noise(Parameterization):
    """The network predicts the noise, epsilon of DDPM."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return jnp.zeros_like(alpha), jnp.ones_like(sigma)


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts v = alpha noise - sigma x_0, which is defined at both ends."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return -sigma, alpha


@dataclass(frozen=True)
class Score(Parameterization):
    """The network predicts grad log q(x_t | x_0) = -noise / sigma; it has none at sigma = 0."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        return jnp.zeros_like(alpha), divide(-jnp.ones_like(sigma), sigma)


@dataclass(frozen=True)
class Velocity(Parameterization):
    """The network predicts dx_t/dt = alpha' x_0 + sigma' noise (flow matching)."""

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        _, derivatives = jax.jvp(lambda t: process.scales(t, x), (t,), (jnp.ones_like(t),))
        return derivatives


@dataclass(frozen=True)
class EDM(Parameterization):
    """The network predicts F, which has unit variance at every noise level, equation (1).

    x_0 = c_skip x + c_out F with c_skip = alpha c^2 / S^2 and c_out = c sigma / S; for
    alpha = 1 they are the paper's. det is -S / c, so F tells x_0 and noise apart at both ends.
    With c = 1 and variance preserved F is -v. The network should see
    `input_scale(process)` and `network_time(process)`: `precondition` gives it both.

    Attributes:
        sigma_data: c, the data's standard deviation.

    Source: Karras et al. 2022 (arXiv:2206.00364), equations (7), (8) and table 1.
    """

    sigma_data: float = 0.5

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha, sigma = process.scales(t, x)
        std = self._std(alpha, sigma)
        return sigma / (self.sigma_data * std), -self.sigma_data * alpha / std

    def input_scale(self, process: GaussianProcess) -> Callable[[Time], Array]:
        """c_in = 1 / S, times [b] -> [b]: the network's input has unit variance."""
        return lambda t: 1.0 / self._std(*process.scales(t, t))

    def network_time(self, process: GaussianProcess) -> Callable[[Time], Array]:
        """c_noise = log(sigma / alpha) / 4, times [b] -> [b]; about -4.6 and 4.6 at the ends."""

        def c_noise(t: Time) -> Array:
            alpha, sigma = (jnp.log(jnp.maximum(v, 1e-8)) for v in process.scales(t, t))
            return 0.25 * (sigma - alpha)

        return c_noise

    def _std(self, alpha: Array, sigma: Array) -> Array:
        return jnp.sqrt((self.sigma_data * alpha) ** 2 + sigma**2)


@dataclass(frozen=True)
class LearnedVariance(Parameterization):
    """The network also predicts the reverse variance: its last half of the channels.

    The answer has 2c channels, y first; the others say the fraction v = (answer + 1)/2 of

        log w = v log(transition variance) + (1 - v) log(posterior variance)

    which nothing keeps in [0, 1]. `losses.hybrid_terms` trains it.

    Attributes:
        parameterization: of y.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation (15).
    """

    parameterization: Parameterization = Noise()

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        return self.parameterization.coefficients(process, t, x)

    def split(self, answer: Array) -> tuple[Array, Array | None]:
        """y and v, each with half the channels.

        Raises:
            ValueError: the number of channels is odd.
        """
        if answer.shape[-1] % 2:
            raise ValueError(
                f"the network answered with shape {answer.shape}; a learned variance needs "
                "twice the channels of x."
            )
        y, variance = jnp.split(answer, 2, axis=-1)
        return y, (variance + 1.0) / 2.0


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
