"""Random corruptions of small pictures, by which upsamplers learn to forgive what earlier stages
draw: C(key, x) of pixels in [-1, 1], each picture with a key of its own.

    blur       a Gaussian of a random width, mirrors for edges                              (1)
    noise      x + s n, s random, n white                                                   (2)
    JPEG       cosines of 8x8 blocks, rounded to multiples of a random quality's table      (3)
    rescale    smaller by a random factor, and back                                         (4)

BSR is all of them, blur twice, in a random order: what happens to pictures on their way. It is a
mild form of BSRGAN's, which begins with the large picture, and has anisotropic blurs, other kinds
of rescaling, a camera's noise, and JPEG always last.

Sources: Zhang et al. 2021, BSRGAN (arXiv:2103.14006), section 3; Ho et al. 2021
(arXiv:2106.15282), for blur; Ramesh et al. 2022 (arXiv:2204.06125), section 2.1, for where they
are used; ITU-T T.81, annex K, for JPEG's table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.frequencies import dct, inverse_dct, squared_frequencies
from diffusion_jax.types import Key

Picture = Float[Array, "h w c"]


@runtime_checkable
class Corruption(Protocol):
    """(keys [b], pictures [b h w c] in [-1, 1]) -> pictures."""

    def __call__(self, keys: Key, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]: ...


@dataclass(frozen=True)
class RandomBlur:
    """Equation (1), of a width that is uniform from `least` to `most` pixels, for a share of the
    pictures.

    Attributes:
        least, most: standard deviations of the Gaussian.
        share: of the pictures that are blurred.
    """

    least: float = 0.4
    most: float = 0.6
    share: float = 0.5

    def __call__(self, keys: Key, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        def one(key: Key, x: Picture) -> Picture:
            width, chance = jax.random.uniform(key, (2,))
            sigma = self.least + (self.most - self.least) * width
            return blurred(x, jnp.where(chance < self.share, sigma, 0.0))

        return jax.vmap(one)(keys, x)


@dataclass(frozen=True)
class BSR:
    """Equations (1) to (4), (1) twice, in a random order.

    Attributes:
        blur: the widest Gaussian, pixels.
        noise: the largest s.
        quality: the lowest of JPEG, from 1 to 100.
        rescale: the smallest factor.
    """

    blur: float = 1.0
    noise: float = 0.1
    quality: float = 50.0
    rescale: float = 0.5

    def __call__(self, keys: Key, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        def blur(key: Key, x: Picture) -> Picture:
            return blurred(x, self.blur * jax.random.uniform(key))

        def noise(key: Key, x: Picture) -> Picture:
            level, own = jax.random.split(key)
            s = self.noise * jax.random.uniform(level)
            return x + s * jax.random.normal(own, x.shape)

        def compress(key: Key, x: Picture) -> Picture:
            return jpeg(x, self.quality + (100.0 - self.quality) * jax.random.uniform(key))

        def shrink(key: Key, x: Picture) -> Picture:
            factor = self.rescale + (1.0 - self.rescale) * jax.random.uniform(key)
            return rescaled(x, factor)

        steps: list[Callable[[Key, Picture], Picture]] = [blur, blur, noise, compress, shrink]

        def one(key: Key, x: Picture) -> Picture:
            key_order, *own = jax.random.split(key, len(steps) + 1)
            order = jax.random.permutation(key_order, len(steps))

            def step(x: Picture, chosen: tuple[Array, Key]) -> tuple[Picture, None]:
                number, key = chosen
                return jax.lax.switch(number, steps, key, x), None

            x, _ = jax.lax.scan(step, x, (order, jnp.stack(own)))
            return jnp.clip(x, -1.0, 1.0)

        return jax.vmap(one)(keys, x)


def blurred(x: Picture, sigma: Float[Array, ""]) -> Picture:
    """Equation (1) of this standard deviation in pixels; 0 leaves the picture."""
    frequencies = jnp.asarray(squared_frequencies(*x.shape[:2]), x.dtype)
    lost = jnp.expm1(-0.5 * sigma**2 * frequencies)[None] * dct(x[None])
    return x + inverse_dct(lost)[0]


def rescaled(x: Picture, factor: Float[Array, ""]) -> Picture:
    """Equation (4): drawn smaller by a traced factor, and back, both bilinear and antialiased.

    Both are matrices that depend on the factor, so that sizes stay what they are.
    """
    rows, columns = (_there_and_back(n, factor) for n in x.shape[:2])
    return jnp.einsum("ij,kl,jlc->ikc", rows, columns, x, precision=jax.lax.Precision.HIGHEST)


def _there_and_back(n: int, factor: Float[Array, ""]) -> Float[Array, "{n} {n}"]:
    """[n n]: n pixels to n factor of them, and back to n."""
    place = jnp.arange(n) + 0.5
    count = jnp.maximum(jnp.round(n * factor), 1.0)
    centre = place * (n / count)  # of the small pixels, in large ones; those after `count` unused
    used = jnp.arange(n) < count
    reach = n / count
    down = jnp.maximum(1.0 - jnp.abs(place[None] - centre[:, None]) / reach, 0.0)
    down = down / jnp.maximum(down.sum(1, keepdims=True), 1e-6)
    up = jnp.maximum(1.0 - jnp.abs(centre[None] - place[:, None]) / reach, 0.0) * used[None]
    up = up / jnp.maximum(up.sum(1, keepdims=True), 1e-6)
    return jnp.matmul(up, down, precision=jax.lax.Precision.HIGHEST)


# The luminance table of T.81, K.1, for levels of 0 to 255.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def jpeg(x: Picture, quality: Float[Array, ""]) -> Picture:
    """Equation (3): each channel's 8x8 blocks through JPEG's rounding, of a quality in [1, 100].

    Colours aren't changed for others, nor drawn smaller. A side that isn't a multiple of 8 is
    filled up by its last pixels.
    """
    h, w, c = x.shape
    padded = jnp.pad(x, ((0, -h % 8), (0, -w % 8), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // 8, padded.shape[1] // 8
    blocks = padded.reshape(rows, 8, columns, 8, c).transpose(0, 2, 1, 3, 4).reshape(-1, 8, 8, c)
    # Libraries' rule from a quality to a multiple of the table.
    scale = jnp.where(quality < 50, 50.0 / jnp.maximum(quality, 1.0), 2.0 - quality / 50.0)
    step = jnp.clip(jnp.floor(_LUMINANCE * scale + 0.5), 1.0, 255.0)[None, :, :, None]
    levels = 127.5 * blocks - 0.5  # from 0 to 255, less 128; `dct` is T.81's
    rounded = (inverse_dct(jnp.round(dct(levels) / step) * step) + 0.5) / 127.5
    back = rounded.reshape(rows, columns, 8, 8, c).transpose(0, 2, 1, 3, 4)
    return back.reshape(padded.shape)[:h, :w]
