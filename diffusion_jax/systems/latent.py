"""Latent diffusion: a diffusion model of a codec's latents, and what is done with it.

    z_0 = scale (encode(x) - shift),   x = decode(z_0 / scale + shift)                          (1)

The scale makes the latents' entries of the size of 1, as the process expects of data.

Source: Rombach et al. 2022 (arXiv:2112.10752), sections 3.1, 3.2 and appendix G.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.editing import Replacement, renoise
from diffusion_jax.interpolation import slerp
from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.tiling import sliced, tiled
from diffusion_jax.samplers import draw_prior
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.types import Index, Key, Params, Scalar


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "scale", "shift"],
    meta_fields=["encoder", "decoder"],
)
@dataclass(frozen=True)
class Codec:
    """Equation (1), as a pytree.

    Attributes:
        encoder: (params, pictures in [-1, 1]) -> latents.
        decoder: (params, latents) -> pictures.
        params: of both.
        scale, shift: scalars, or [c].
    """

    encoder: Callable[[Params, Array], Array] = field(repr=False)
    decoder: Callable[[Params, Array], Array] = field(repr=False)
    params: Params = field(repr=False)
    scale: Scalar = 1.0
    shift: Scalar = 0.0

    def encode(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 z"]:
        """z_0 of pictures."""
        return (self.encoder(self.params, x) - self.shift) * self.scale

    def decode(self, z: Float[Array, "b h2 w2 z"]) -> Float[Array, "b h w c"]:
        """Pictures of z_0, in [-1, 1]."""
        return jnp.clip(self.decoder(self.params, z / self.scale + self.shift), -1.0, 1.0)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["stage", "codec"],
    meta_fields=[],
)
@dataclass(frozen=True)
class LatentDiffusion:
    """A stage that draws latents, and their codec: `jax.jit(LatentDiffusion.sample)(system, ...)`.

    Attributes:
        stage: its shape is the latents'.
        codec: of the pictures.
    """

    stage: Stage
    codec: Codec

    def sample(
        self, key: Key, known: Known, index: Index, start: Array | None = None
    ) -> Float[Array, "b h w c"]:
        """Pictures of what is known.

        Args:
            key: of the noise, with the examples' numbers.
            known: arrays [b ...].
            index: the examples' numbers [b].
            start: x_1 of the latents, by default the prior's.
        """
        return self.codec.decode(self.stage.draw(key, known, index, start))

    def variations(
        self, key: Key, known: Known, index: Index, weight: Scalar
    ) -> Float[Array, "b h w c"]:
        """Pictures near picture 0 of the key: their noise lies between its noise and their own.

        Args:
            key, known, index: as of `sample`.
            weight: from 0, picture 0 where the sampler adds no noise, to 1, `sample`.
        """
        process, shape = self.stage.process, (len(index), *self.stage.shape)
        first = draw_prior(key, process, shape, index=jnp.zeros_like(index))
        own = draw_prior(key, process, shape, index=index)
        return self.sample(key, known, index, slerp(first, own, weight))

    def image_to_image(
        self, key: Key, picture: Float[Array, "b h w c"], known: Known, index: Index
    ) -> Float[Array, "b h w c"]:
        """Pictures that begin at one with noise, at the first of the stage's times; the lower that
        is, the more of it is kept (`begun` cuts the times).

        Source: Meng et al. 2022, SDEdit (arXiv:2108.01073).
        """
        z = self.codec.encode(picture)
        start = renoise(key, self.stage.process, z, self.stage.times[0], index=index)
        return self.sample(key, known, index, start)

    def inpaint(
        self,
        key: Key,
        picture: Float[Array, "b h w c"],
        mask: Float[Array, "b h w 1"],
        known: Known,
        index: Index,
    ) -> Float[Array, "b h w c"]:
        """Pictures that keep one where the mask is 1, by replacing the latents there.

        The mask's latents are those whose pixels are all kept; at the end the picture itself is put
        back, pixel by pixel.
        """
        z = self.codec.encode(picture)
        kept = shrunk_mask(mask, (z.shape[1], z.shape[2]))
        stage = replace(self.stage, sampler=Replacement(self.stage.sampler, z, kept))
        drawn = replace(self, stage=stage).sample(key, known, index)
        return jnp.where(mask == 1, picture, drawn)


def begun(stage: Stage, strength: float) -> Stage:
    """The stage from the time on at which this share of its steps is left.

    Args:
        stage: whose times have n steps.
        strength: from 0, the picture as it is, to 1, nothing of it.

    Raises:
        ValueError: a strength outside of [0, 1], or so little that no step is left.
    """
    n = len(stage.times) - 1
    left = min(int(n * strength), n)
    if not 0 <= strength <= 1 or left < 1:
        raise ValueError(
            f"strength is {strength}; of {n} steps it must leave one at least, and be at most 1."
        )
    return replace(stage, times=stage.times[n - left :])


def shrunk_mask(mask: Float[Array, "b h w 1"], size: tuple[int, int]) -> Float[Array, "b h2 w2 1"]:
    """1 where all pixels of a latent's square are 1, else 0.

    Raises:
        ValueError: the size doesn't divide the mask's.
    """
    b, h, w, _ = mask.shape
    rows, columns = h // size[0], w // size[1]
    if rows * size[0] != h or columns * size[1] != w:
        raise ValueError(f"a mask of {h}x{w} can't be shrunk to {size[0]}x{size[1]}.")
    return mask.reshape(b, size[0], rows, size[1], columns, 1).min((2, 4))


def in_latents(known: Known, encode: Callable[[Array], Array]) -> Known:
    """What is known of pictures, as a model of their latents is told it.

    A picture, "image", becomes its latents, and a "mask" `shrunk_mask`; "masked" are the latents of
    what is known of the picture. Everything else stays.

    Args:
        known: arrays [b ...]; pictures in [-1, 1].
        encode: pictures -> latents.

    Source: Rombach et al. 2022, section 4.5, for masks.
    """
    if "image" not in known:
        return known
    z = encode(known["image"])
    if "mask" not in known:
        return {**known, "image": z}
    mask = shrunk_mask(known["mask"], (z.shape[1], z.shape[2]))
    return {**known, "image": z, "mask": mask, "masked": encode(known["image"] * known["mask"])}


def in_tiles(codec: Codec, tile: int, factor: int) -> Codec:
    """The codec that sees squares of a picture one after another, a quarter of each overlapping.

    Args:
        codec: of pictures.
        tile: side of the squares in pixels, a multiple of four times the factor.
        factor: how much smaller latents are.

    Raises:
        ValueError: another tile.
    """
    check_tile(tile, factor)
    small = tile // factor

    def encoder(params: Params, x: Array) -> Array:
        run = partial(codec.encoder, params)
        return tiled(run, x, tile=tile, overlap=tile // 4, factor=Fraction(1, factor))

    def decoder(params: Params, z: Array) -> Array:
        run = partial(codec.decoder, params)
        return tiled(run, z, tile=small, overlap=small // 4, factor=factor)

    return replace(codec, encoder=encoder, decoder=decoder)


def check_tile(tile: int, factor: int) -> None:
    """Raises ValueError for a tile that `in_tiles` can't have."""
    if tile < 1 or tile % (4 * factor):
        raise ValueError(f"a tile of {tile} isn't possible; a multiple of {4 * factor} is.")


def one_by_one(codec: Codec) -> Codec:
    """The codec that sees the pictures of a batch one after another."""

    def alone(run: Callable[[Params, Array], Array]) -> Callable[[Params, Array], Array]:
        return lambda params, x: sliced(partial(run, params), x)

    return replace(codec, encoder=alone(codec.encoder), decoder=alone(codec.decoder))


def codec_of(network: Any, params: Params, *, scale: Scalar = 1.0, shift: Scalar = 0.0) -> Codec:
    """A `KLAutoencoder` with its parameters as a codec: latents are the posterior's mean."""

    def encoder(params: Params, x: Array) -> Array:
        return network.apply({"params": params}, x, method="encode").mean

    def decoder(params: Params, z: Array) -> Array:
        return network.apply({"params": params}, z, method="decode")

    return Codec(encoder, decoder, params, scale, shift)
