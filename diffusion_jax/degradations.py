"""Degradations: pure functions D(x0, noise, t) of pixels in [-1, 1], D(x0, noise, 0) = x0 exactly.

    blur       G(sigma_blur(t)) x0, mirrors for edges                                       (1)
    mask       m_t x0,  m_t = prod_i (1 - w_i exp(-r^2 / 2 beta_i^2))                       (2)
    pixelate   sum_k w_k P_k x0,  P_k the means of blocks of 2^k x 2^k                      (3)
    snow       x0 + c_t (1 - x0),  the cover c_t in [0, 1]                                  (4)
    noise      alpha_t x0 + sigma_t noise, the same noise at every t                        (5)

They are continuous in t; the ones with levels walk through them at even times. Their randomness
is the white noise that they are given, [b h w c], and nothing else. Animorph isn't here: it is
`Gaussian` with another picture for the noise.

Source: Bansal et al. 2022 (arXiv:2208.09392), section 5 and appendix A; snow after Hendrycks &
Dietterich 2019 (arXiv:1903.12261).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.frequencies import dct, inverse_dct, squared_frequencies
from diffusion_jax.processes import expand
from diffusion_jax.schedules import Cosine
from diffusion_jax.spectral import Blur, Mask, SineBlur
from diffusion_jax.types import Schedule, Time

Pictures = Float[Array, "b h w c"]


@dataclass(frozen=True)
class GaussianBlur:
    """Equation (1). At the end a wide blur leaves each picture's mean colour.

    Attributes:
        blur: t -> sigma_blur in pixels, 0 at t = 0.
    """

    blur: Blur = SineBlur()
    random = False

    def __call__(self, x0: Pictures, noise: Pictures, t: Time) -> Pictures:
        tau = 0.5 * expand(self.blur(t), x0) ** 2
        frequencies = jnp.asarray(squared_frequencies(*x0.shape[1:3]), x0.dtype)
        # Only what is lost goes through the transform, so that nothing lost is exactly x0.
        return x0 + inverse_dct(jnp.expm1(-tau * frequencies[None]) * dct(x0))


@dataclass(frozen=True)
class GaussianMask:
    """m_t of equation (2): a hole that grows, (t, x) -> [b h w 1].

    beta_i = start + growth (i - 1) for i = 1..steps; w_i grows from 0 to 1 while t goes from
    (i - 1)/steps to i/steps.

    Attributes:
        start: beta_1, pixels.
        growth: of each beta, pixels.
        steps: factors of the product.
        center: of the hole, in parts of height and width.
    """

    start: float = 1.0
    growth: float = 0.1
    steps: int = 50
    center: tuple[float, float] = (0.5, 0.5)

    def __call__(self, t: Time, x: Pictures) -> Float[Array, "b h w 1"]:
        (h, w), (down, right) = x.shape[1:3], self.center
        rows, columns = np.arange(h) - down * (h - 1), np.arange(w) - right * (w - 1)
        squares = jnp.asarray(rows[:, None] ** 2 + columns[None, :] ** 2, t.dtype)[None, ..., None]

        def dig(i, mask):
            beta = self.start + self.growth * i
            weight = expand(jnp.clip(t * self.steps - i, 0.0, 1.0), x)
            return mask * (1.0 - weight * jnp.exp(-squares / (2 * beta**2)))

        whole = jnp.ones((t.shape[0], h, w, 1), t.dtype)
        return jax.lax.fori_loop(0, self.steps, dig, whole)


@dataclass(frozen=True)
class Masking:
    """Equation (2): what is under the mask turns grey.

    Attributes:
        mask: (t, x) -> [b h w 1], 1 at t = 0.
    """

    mask: Mask = GaussianMask()
    random = False

    def __call__(self, x0: Pictures, noise: Pictures, t: Time) -> Pictures:
        return self.mask(t, x0) * x0


@dataclass(frozen=True)
class Pixelate:
    """Equation (3): blocks of 2^k pixels at t = k/levels, and mixtures of two sizes between.

    Attributes:
        levels: height and width must be multiples of 2^levels.
    """

    levels: int = 3
    random = False

    def __call__(self, x0: Pictures, noise: Pictures, t: Time) -> Pictures:
        side = 2**self.levels
        if x0.shape[1] % side or x0.shape[2] % side:
            raise ValueError(
                f"pictures of {x0.shape[1]}x{x0.shape[2]} can't be cut into blocks of "
                f"{side}x{side}; height and width must be multiples of 2^levels."
            )
        x = jnp.zeros_like(x0)
        for k in range(self.levels + 1):
            weight = jnp.clip(1.0 - jnp.abs(t * self.levels - k), 0.0, 1.0)
            x = x + expand(weight, x0) * _blocks(x0, 2**k)
        return x


def _blocks(x: Pictures, side: int) -> Pictures:
    """Each block of side x side pixels becomes its mean."""
    if side == 1:
        return x
    b, h, w, c = x.shape
    means = x.reshape(b, h // side, side, w // side, side, c).mean((2, 4))
    return jnp.repeat(jnp.repeat(means, side, axis=1), side, axis=2)


@dataclass(frozen=True)
class Snow:
    """Equation (4): more and more flakes, streaks of white; the noise says where.

    c_t = clip((u - (1 - t)) / softness, 0, 1) with a field u that is uniform on [0, 1] in each
    pixel, equal over `streak` pixels of the column in part.

    Attributes:
        streak: how far a flake falls, pixels.
        softness: of the flakes' edges; at t = 1 this share of the pixels still shows something.
    """

    streak: int = 3
    softness: float = 0.25
    random = True

    def __call__(self, x0: Pictures, noise: Pictures, t: Time) -> Pictures:
        flakes = noise[..., :1]  # white in every channel
        fallen = sum(jnp.roll(flakes, i, axis=1) for i in range(self.streak)) / self.streak**0.5
        u = jax.scipy.special.ndtr(fallen)
        cover = jnp.clip((u - (1.0 - expand(t, x0))) / self.softness, 0.0, 1.0)
        return x0 + cover * (1.0 - x0)


@dataclass(frozen=True)
class FixedNoise:
    """Equation (5).

    Attributes:
        schedule: alpha(t) and sigma(t).
    """

    schedule: Schedule = Cosine()
    random = True

    def __call__(self, x0: Pictures, noise: Pictures, t: Time) -> Pictures:
        alpha, sigma = expand(self.schedule.alpha(t), x0), expand(self.schedule.sigma(t), x0)
        return alpha * x0 + sigma * noise
