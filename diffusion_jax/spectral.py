"""Blurring processes: an alpha for every frequency, and for masking one for every pixel.

In the basis of the orthonormal DCT, where white noise stays white, with frequencies

    f_kl^2 = (pi k / h)^2 + (pi l / w)^2

    damping       d_t(f) = (1 - floor) exp(-f^2 tau_t) + floor,  tau_t = sigma_blur(t)^2 / 2    (1)
    marginal      x_t = a_t d_t(f) x_0 + sigma_t noise,  a and sigma of the schedule            (2)

so exp(-f^2 tau) is the heat equation after a time tau, and the Gaussian blur of width
sigma_blur pixels with mirrors for edges. Three models are values of it:

    blurring diffusion   a, sigma variance preserving; sigma_blur = sigma_max sin^2(t pi/2)     (3)
    inverse heat         a = 1, sigma = const.; log sigma_blur linear in t                      (4)
    soft diffusion       a = 1, sigma of a VE schedule; any sigma_blur, or a mask               (5)

In (4) and (5) the mean of a picture never decays, so x_1 is corrupted data: `prior` refuses.

Sources: Hoogeboom & Salimans 2022 (arXiv:2209.05557), sections 3 and 4, appendix A; Rissanen
et al. 2022 (arXiv:2206.13397), section 3 and appendix A; Daras et al. 2022 (arXiv:2209.05442).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.frequencies import dct, inverse_dct, squared_frequencies
from diffusion_jax.processes import Scaled, divide, expand, pure_noise
from diffusion_jax.schedules import Cosine
from diffusion_jax.schedules.base import at_least_float32
from diffusion_jax.types import GaussianProcess, Parameterization, Schedule, Time

Blur = Callable[[Time], Array]  # t [b] -> sigma_blur in pixels [b], 0 at t = 0
Mask = Callable[[Time, Array], Array]  # (t [b], x [b h w c]) -> [b h w 1], 1 at t = 0

# exp(-30) is as good as 0, and the derivatives of its quotients are still numbers in float32.
_LARGEST_EXPONENT = 30.0


@dataclass(frozen=True)
class SineBlur:
    """sigma_blur(t) = sigma_max sin^2(t pi/2), equation (3).

    Attributes:
        sigma_max: in pixels.
    """

    sigma_max: float = 20.0

    def __call__(self, t: Time) -> Float[Array, " b"]:
        return self.sigma_max * jnp.sin(at_least_float32(t) * (jnp.pi / 2)) ** 2


@dataclass(frozen=True)
class ExponentialBlur:
    """sigma_blur from sigma_min at t = 1/steps to sigma_max at t = 1, evenly in its logarithm.

    Before t = 1/steps it falls to 0 on a straight line.

    Attributes:
        sigma_min: in pixels, about half of one.
        sigma_max: in pixels, about half the picture or more.
        steps: K of the paper.

    Source: Rissanen et al. 2022, section 3.3: t_k there is sigma_blur(k / K)^2 / 2.
    """

    sigma_min: float = 0.5
    sigma_max: float = 20.0
    steps: int = 200

    def __call__(self, t: Time) -> Float[Array, " b"]:
        t = at_least_float32(t)
        place = (t * self.steps - 1.0) / max(self.steps - 1, 1)
        rising = self.sigma_min * jnp.exp(place * math.log(self.sigma_max / self.sigma_min))
        return jnp.where(place < 0, self.sigma_min * t * self.steps, rising)


@dataclass(frozen=True)
class Constant:
    """alpha = 1 and sigma the same at every t, t = 0 too: heat's schedule, equation (4)."""

    noise: float = 0.02

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.ones_like(at_least_float32(t))

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.full_like(at_least_float32(t), self.noise)


@dataclass(frozen=True)
class Spectral(Scaled):
    """Equation (2); its coordinates are DCT coefficients [b h w c].

    Attributes:
        schedule: a(t) and sigma(t).
        blur: t -> sigma_blur in pixels, 0 at t = 0.
        floor: what is left of the highest frequencies, d_min.
        max_terminal_snr: as in `Gaussian`, for the mean of a picture, which blur leaves.
    """

    schedule: Schedule
    blur: Blur
    floor: float = 0.0
    max_terminal_snr: float = 0.01

    def encode(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Pixels to frequencies."""
        return dct(pixels)

    def decode(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Frequencies to pixels."""
        return inverse_dct(x)

    def damping(self, t: Time, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
        """d_t of equation (1)."""
        tau = 0.5 * expand(self.blur(t), x) ** 2
        frequencies = jnp.asarray(squared_frequencies(*x.shape[1:3]), tau.dtype)
        exponent = jnp.minimum(tau * frequencies[None], _LARGEST_EXPONENT)
        floor = jnp.asarray(self.floor, tau.dtype)
        return (1.0 - floor) * jnp.exp(-exponent) + floor

    def scales(self, t: Time, x: Float[Array, "b h w c"]) -> tuple[Array, Array]:
        """(alpha_t [b h w 1], sigma_t [b 1 1 1])."""
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        return alpha * self.damping(t, x), sigma

    def prior(self, noise: Array) -> Array:
        """x_1 = sigma(1) noise.

        Raises:
            ValueError: the mean of a picture is still there at t = 1, as in heat.
        """
        return pure_noise(self, noise, self.max_terminal_snr, _REMEDY)


@dataclass(frozen=True)
class Masked(Scaled):
    """x_t = a_t m_t x_0 + sigma_t noise with a mask m_t of the pixels: soft diffusion's masking.

    Attributes:
        schedule: a(t) and sigma(t).
        mask: (t, x) -> [b h w 1] in [0, 1], 1 at t = 0; such as `degradations.GaussianMask`.
        max_terminal_snr: as in `Gaussian`, for pixels that the mask leaves.
    """

    schedule: Schedule
    mask: Mask
    max_terminal_snr: float = 0.01

    def encode(self, pixels: Array) -> Array:
        """The identity."""
        return pixels

    def decode(self, x: Array) -> Array:
        """The identity."""
        return x

    def scales(self, t: Time, x: Float[Array, "b h w c"]) -> tuple[Array, Array]:
        """(alpha_t [b h w 1], sigma_t [b 1 1 1])."""
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        return alpha * self.mask(t, x), sigma

    def prior(self, noise: Array) -> Array:
        """x_1 = sigma(1) noise.

        Raises:
            ValueError: a pixel outside of the mask is still there at t = 1.
        """
        return pure_noise(self, noise, self.max_terminal_snr, _REMEDY)


_REMEDY = (
    "start from data that are corrupted at t = 1, in a recipe by terminal=FromData(), or allow "
    "it with max_terminal_snr=..."
)


def blurring(
    schedule: Schedule = Cosine(), sigma_max: float = 20.0, floor: float = 0.001
) -> Spectral:
    """Blurring diffusion, equation (3).

    Args:
        schedule: a(t) and sigma(t), variance preserving.
        sigma_max: width of the blur at t = 1, pixels.
        floor: d_min.

    Raises:
        ValueError: sigma_max or floor is out of range.

    >>> blurring().schedule
    Cosine()
    """
    if sigma_max < 0 or not 0 < floor <= 1:
        raise ValueError(
            f"blurring: sigma_max is {sigma_max} and floor is {floor}; the blur is at least 0 "
            "pixels wide, and 0 < floor <= 1."
        )
    return Spectral(schedule, SineBlur(sigma_max), floor)


def heat(
    sigma_min: float = 0.5, sigma_max: float = 20.0, steps: int = 200, noise: float = 0.02
) -> Spectral:
    """Inverse heat dissipation, equation (4).

    Args:
        sigma_min: width of the blur after the first step, pixels.
        sigma_max: and after the last.
        steps: K; sampling walks `trailing(K)` where the network predicts `LessBlurred(K)`.
        noise: sigma; the paper's 0.01 is for pictures in [0, 1], and these are in [-1, 1].

    Raises:
        ValueError: a number is out of range.
    """
    if not 0 < sigma_min <= sigma_max or steps < 1 or noise <= 0:
        raise ValueError(
            f"heat: sigma_min is {sigma_min}, sigma_max {sigma_max}, steps {steps} and noise "
            f"{noise}; it takes 0 < sigma_min <= sigma_max, at least 1 step, and some noise."
        )
    return Spectral(Constant(noise), ExponentialBlur(sigma_min, sigma_max, steps))


@dataclass(frozen=True)
class LessBlurred(Parameterization):
    """The way to the less blurred, y = (alpha_s x_0 - x_t) / sigma_t with s = t - 1/steps.

    a = (alpha_s - alpha_t) / sigma_t, b = -1. sigma_t^2 times the squared error of y is that of
    the less blurred picture x_t + sigma_t y, so `denoising_loss` with weight 1 is the loss of the
    paper, in units of the noise: y itself is of the order of 1.

    The x_0 that it solves for is (x_t + sigma_t y) / alpha_s, whose high frequencies have nothing
    but the network's error, and much of it: take it to s, and don't clip it.

    Source: Rissanen et al. 2022, equation (8) and Algorithm 1.
    """

    steps: int = 200

    def coefficients(self, process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array]:
        alpha_t, sigma = process.scales(t, x)
        alpha_s, _ = process.scales(jnp.maximum(t - 1.0 / self.steps, 0.0), x)
        return divide(alpha_s - alpha_t, sigma), -jnp.ones_like(sigma)
