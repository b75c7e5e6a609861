"""Codecs: pictures as fewer numbers, and back.

The Kullback-Leibler autoencoder answers with a Gaussian of latents for each picture,

    q(z | x) = N(mean(x), diag exp(log_variance(x))),   x ~ decode(z)                           (1)

on a grid a factor smaller than the picture; the vector-quantised one with the nearest code e_k of
a codebook at each place of that grid,

    k = argmin_j |z - e_j|^2,   decode(z + stop(e_k - z))                                       (2)

whose gradient goes straight through to z. Their losses are `losses.autoencoding`'s.

Sources: Kingma & Welling 2014 (arXiv:1312.6114); van den Oord et al. 2017 (arXiv:1711.00937);
Esser et al. 2021 (arXiv:2012.09841); Rombach et al. 2022 (arXiv:2112.10752), section 3.1 and
appendix G.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.models.attention import Attention
from diffusion_jax.models.layers import (
    GroupNorm,
    ResidualBlock,
    ResizeUp,
    StridedDown,
    conv3x3,
    dense,
)
from diffusion_jax.models.precision import island
from diffusion_jax.random import example_keys, normal
from diffusion_jax.types import Index, Key


class Posterior(NamedTuple):
    """q(z | x) of equation (1), float32.

    Attributes:
        mean: [b h w z].
        log_variance: [b h w z], from -30 to 20.
    """

    mean: Float[Array, "b *shape"]
    log_variance: Float[Array, "b *shape"]

    def sample(self, key: Key, index: Index | None = None) -> Float[Array, "b *shape"]:
        """z, example i's from fold_in(key, index[i])."""
        index = jnp.arange(len(self.mean)) if index is None else index
        noise = normal(example_keys(key, index), self.mean.shape[1:])
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


class _Half(nn.Module):
    """What encoder and decoder share.

    Attributes:
        out_channels: of the answer.
        channels: of the largest level.
        multipliers: the channels of each level, in units of `channels`, the largest level first.
        blocks: residual blocks a level; the decoder has one more.
        middle_attention: whether pixels attend to each other at the lowest level.
        groups, epsilon: of the norms.
        dtype: of the computation; parameters, norms' statistics and the answer are float32.
    """

    out_channels: int
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    middle_attention: bool = True
    groups: int = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    def _block(self, h: Array, channels: int, name: str) -> Array:
        return ResidualBlock(channels, groups=self.groups, epsilon=self.epsilon, name=name)(h)

    def _middle(self, h: Array) -> Array:
        h = self._block(h, h.shape[-1], "middle_block0")
        if self.middle_attention:
            attention = Attention(None, self.groups, self.epsilon, name="middle_attention")
            h = attention(h)
        return self._block(h, h.shape[-1], "middle_block1")

    def _out(self, h: Array) -> Array:
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm_out")(h))
        return island(conv3x3(self.out_channels, self.dtype, "conv_out")(h))


class Encoder(_Half):
    """x [b h w c] -> [b h/f w/f out_channels], f = 2^(levels - 1).

    Raises:
        ValueError: f divides neither height nor width.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 out"]:
        factor = 2 ** (len(self.multipliers) - 1)
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"pictures of {x.shape[1]}x{x.shape[2]} can't be encoded; height and width must "
                f"be multiples of {factor}."
            )
        h = conv3x3(self.channels, self.dtype, "conv_in")(x.astype(self.dtype))
        for i, m in enumerate(self.multipliers):
            for j in range(self.blocks):
                h = self._block(h, m * self.channels, f"down{i}_block{j}")
            if i + 1 < len(self.multipliers):
                h = StridedDown(m * self.channels, name=f"down{i}_resize")(h)
        return self._out(self._middle(h))


class Decoder(_Half):
    """z [b h w c] -> [b f h, f w, out_channels], f = 2^(levels - 1)."""

    @nn.compact
    def __call__(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 out"]:
        lowest = self.multipliers[-1] * self.channels
        h = self._middle(conv3x3(lowest, self.dtype, "conv_in")(z.astype(self.dtype)))
        for i, m in reversed(list(enumerate(self.multipliers))):
            for j in range(self.blocks + 1):
                h = self._block(h, m * self.channels, f"up{i}_block{j}")
            if i > 0:
                h = ResizeUp(m * self.channels, name=f"up{i}_resize")(h)
        return self._out(h)


class KLAutoencoder(nn.Module):
    """Equation (1), in Stable Diffusion's architecture.

    Attributes:
        latents: channels of z.
        out_channels: of the pictures.
        channels, multipliers, blocks, middle_attention, groups, epsilon, dtype: of both halves.
        projections: linear layers of single pixels beside the latents, on both sides.

    Source: Rombach et al. 2022, appendix G.
    """

    latents: int = 4
    out_channels: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    middle_attention: bool = True
    groups: int = 32
    epsilon: float = 1e-6
    projections: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoder = _half(Encoder, self, 2 * self.latents)
        self.decoder = _half(Decoder, self, self.out_channels)
        if self.projections:
            self.before = dense(2 * self.latents, self.dtype, "before")
            self.after = dense(self.latents, self.dtype, "after")

    @property
    def factor(self) -> int:
        """How much larger pictures are than latents."""
        return 2 ** (len(self.multipliers) - 1)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The picture of the posterior's mean."""
        return self.decode(self.encode(x).mean)

    def encode(self, x: Float[Array, "b h w c"]) -> Posterior:
        """q(z | x) of pictures in [-1, 1]."""
        h = self.encoder(x)
        h = island(self.before(h)) if self.projections else h
        mean, log_variance = jnp.split(h, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, z: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        """Pictures of latents, about in [-1, 1]."""
        return self.decoder(island(self.after(z)) if self.projections else z)


class Quantized(NamedTuple):
    """Latents as codes.

    Attributes:
        z: what the encoder answered [b h w d].
        codes: k of equation (2) [b h w].
        vectors: e_k [b h w d].
        through: e_k, with z's gradient.
    """

    z: Float[Array, "b h w d"]
    codes: Int[Array, "b h w"]
    vectors: Float[Array, "b h w d"]
    through: Float[Array, "b h w d"]


class VQAutoencoder(nn.Module):
    """Equation (2).

    Attributes:
        codes: entries of the codebook.
        features: d, of an entry.
        out_channels: of the pictures.
        channels, multipliers, blocks, middle_attention, groups, epsilon, dtype: of both halves.

    Source: van den Oord et al. 2017; the halves as in Esser et al. 2021, with attention at the
    lowest level alone.
    """

    codes: int = 1024
    features: int = 8
    out_channels: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    middle_attention: bool = True
    groups: int = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.encoder = _half(Encoder, self, self.features)
        self.decoder = _half(Decoder, self, self.out_channels)
        init = nn.initializers.variance_scaling(1.0, "fan_out", "normal")
        self.codebook = self.param("codebook", init, (self.codes, self.features), jnp.float32)

    @property
    def factor(self) -> int:
        """How much larger pictures are than latents."""
        return 2 ** (len(self.multipliers) - 1)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The picture of the picture's codes."""
        return self.decode(self.encode(x).through)

    def encode(self, x: Float[Array, "b h w c"]) -> Quantized:
        """Codes of pictures in [-1, 1]."""
        z = self.encoder(x)
        codes = nearest_codes(z, self.codebook)
        vectors = self.codebook[codes]
        return Quantized(z, codes, vectors, z + jax.lax.stop_gradient(vectors - z))

    def decode(self, z: Float[Array, "b h w d"]) -> Float[Array, "b h2 w2 c"]:
        """Pictures of codes' vectors, about in [-1, 1]."""
        return self.decoder(z)

    def decode_codes(self, codes: Int[Array, "b h w"]) -> Float[Array, "b h2 w2 c"]:
        """Pictures of codes."""
        return self.decoder(self.codebook[codes])


def nearest_codes(
    z: Float[Array, "*place d"], codebook: Float[Array, "k d"]
) -> Int[Array, "*place"]:
    """k of equation (2), by |e_k|^2 - 2 z . e_k."""
    product = jnp.matmul(z, codebook.T, precision=jax.lax.Precision.HIGHEST)
    size = jnp.sum(codebook**2, axis=1)
    return jnp.argmin(size.reshape((1,) * (z.ndim - 1) + (-1,)) - 2 * product, axis=-1)


def _half(kind: Any, codec: Any, out_channels: int) -> Any:
    names = ("channels", "multipliers", "blocks", "middle_attention", "groups", "epsilon", "dtype")
    return kind(out_channels, **{name: getattr(codec, name) for name in names})


def sd_autoencoder(dtype: Any = jnp.float32) -> KLAutoencoder:
    """Stable Diffusion's, 83.7 M parameters; latents of 4 channels, 8 times smaller."""
    return KLAutoencoder(dtype=dtype)
