"""Stable Diffusion's U-Net: residual blocks, and transformers that read texts between them.

Each transformer sees its pixels as tokens h, and adds what its blocks have made of them,

    h = x + W' blocks(W norm(x))                                                                (1)

a block being self-attention, cross-attention to the text and a gated MLP, each of which is added
to what its norm has read:

    MLP(h) = W2 (a gelu(g)),  [a, g] = W1 h                                                     (2)

Sources: Rombach et al. 2022, latent diffusion (arXiv:2112.10752), section 3.3 and appendix E.2.1;
Shazeer 2020 (arXiv:2002.05202), for (2); Podell et al. 2023, SDXL (arXiv:2307.01952), section 2.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_jax.models.attention import MultiHead
from diffusion_jax.models.clip_blocks import exact_gelu, layer_norm
from diffusion_jax.models.cuts import STACK
from diffusion_jax.models.layers import (
    GroupNorm,
    ResidualBlock,
    ResizeUp,
    Sinusoidal,
    conv3x3,
    dense,
)
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat, stacked
from diffusion_jax.types import Condition


class TextBlock(nn.Module):
    """A block of equation (1), as the body of a scan: tokens read each other, then the text.

    Attributes:
        heads: of each attention.
    """

    heads: int

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b n width"],
        text: Float[Array, "b m d"],
        mask: Bool[Array, "b m"] | None,
    ) -> tuple[Float[Array, "b n width"], None]:
        def attend(name: str, normed: Array, source: Array, keep: Array | None = None) -> Array:
            attention = MultiHead(self.heads, zero=True, bias=False, name=name)
            return attention(normed, source, keep)

        normed = layer_norm(h, 1e-5, "norm1")
        h = h + attend("self", normed, normed)
        h = h + attend("cross", layer_norm(h, 1e-5, "norm2"), text, mask)

        width = h.shape[-1]
        y, gate = jnp.split(dense(8 * width, h.dtype, "mlp1")(layer_norm(h, 1e-5, "norm3")), 2, -1)
        return h + dense(width, h.dtype, "mlp2", zero=True)(y * exact_gelu(gate)), None


class SpatialTransformer(nn.Module):
    """Equation (1): pixels read each other and a text, in so many blocks.

    Attributes:
        depth: blocks.
        heads: of each attention; they divide the channels.
        groups: of the norm, whose epsilon is 1e-6.
        remat: "none", "dots" or "full", as `DiT`'s.
    """

    depth: int
    heads: int
    groups: int = 32
    remat: Remat = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        text: Float[Array, "b m d"],
        mask: Bool[Array, "b m"] | None = None,
    ) -> Float[Array, "b h w c"]:
        b, height, width, c = x.shape
        if c % self.heads:
            raise ValueError(f"{c} channels can't be cut into {self.heads} heads.")
        h = GroupNorm(self.groups, 1e-6, name="norm")(x).reshape(b, height * width, c)
        h = dense(c, x.dtype, "project_in")(h)
        blocks = stacked(TextBlock, self.depth, self.remat, initializing=self.is_initializing())
        h, _ = blocks(self.heads, name=STACK)(h, text.astype(x.dtype), mask)
        return x + dense(c, x.dtype, "project_out", zero=True)(h).reshape(x.shape)


class LatentUNet(nn.Module):
    """(x [b h w c], t [b], condition) -> y [b h w out_channels], float32; t in table steps 0..999.

    Attributes:
        out_channels: of the answer.
        channels: of each level, the largest pictures first.
        depths: blocks of each level's transformers; 0 is a level without.
        heads: of each level's attentions; the last ones are the middle's too.
        middle_depth: blocks of the middle's transformer.
        blocks: residual blocks a level on the way down; one more on the way up.
        classes: entries of `condition.vector` that are a class as one-hot; they come first.
        pooled: entries of `condition.vector` that are features as they are, such as pooled text.
        sizes: entries of `condition.vector`, the last ones, that are numbers, such as SDXL's
            original height and width, top and left of the crop, target height and width.
        size_features: sinusoids for each of those numbers.
        cosine_first, shift: of the time's and the sizes' sinusoids.
        dropout: rate in the residual blocks.
        groups, epsilon: of the residual blocks' norms; their transformers' have 1e-6.
        remat: of the transformers' blocks.
        dtype: of the computation; parameters, norms' statistics and y are float32.

    `condition.tokens` (with `mask`) is the text, `condition.image` what is concatenated to x's
    channels (for inpainting the mask, 1 where it is drawn anew, and the masked picture's latents),
    `condition.vector` joins the time embedding: classes by a table, the pooled entries and the
    sizes' sinusoids through an MLP.

    Raises:
        ValueError: height or width isn't divisible by 2^(levels - 1), no text, a vector of another
            length, an image of another size than x, or tuples of different lengths.

    Source: Rombach et al. 2022, appendix E.2.1; Podell et al. 2023, section 2.2, for the sizes.
    """

    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    middle_depth: int = 1
    blocks: int = 2
    classes: int = 0
    pooled: int = 0
    sizes: int = 0
    size_features: int = 256
    cosine_first: bool = True
    shift: int = 0
    dropout: float = 0.0
    groups: int = 32
    epsilon: float = 1e-5
    remat: Remat = "none"
    dtype: Any = jnp.float32

    @property
    def vector(self) -> int:
        """The length of `condition.vector`; 0 where there is none."""
        return self.classes + self.pooled + self.sizes

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], t: Float[Array, " b"], condition: Condition
    ) -> Float[Array, "b h w out"]:
        text = self._check(x, condition), condition.mask
        embedding = self._embed(t, condition.vector)

        def layer(h: Array, level: int, name: str, number: int) -> Array:
            h = self._block(self.channels[level], f"{name}_block{number}")(h, embedding)
            if self.depths[level] == 0:
                return h
            depth = self.depths[level]
            return self._read(h, text, depth, level, f"{name}_attention{number}")

        h = x.astype(self.dtype)
        if condition.image is not None:
            h = jnp.concatenate([h, condition.image.astype(self.dtype)], axis=-1)
        h = conv3x3(self.channels[0], self.dtype, "conv_in")(h)
        left = [h]
        last = len(self.channels) - 1
        for i, channels in enumerate(self.channels):
            for j in range(self.blocks):
                h = layer(h, i, f"down{i}", j)
                left.append(h)
            if i < last:
                resize = f"down{i}_resize"
                h = conv3x3(channels, self.dtype, resize, stride=2, padding=(1, 1))(h)
                left.append(h)

        h = self._block(self.channels[-1], "middle_block0")(h, embedding)
        h = self._read(h, text, self.middle_depth, last, "middle_attention")
        h = self._block(self.channels[-1], "middle_block1")(h, embedding)

        for i, channels in reversed(list(enumerate(self.channels))):
            for j in range(self.blocks + 1):
                h = layer(jnp.concatenate([h, left.pop()], axis=-1), i, f"up{i}", j)
            if i > 0:
                h = ResizeUp(channels, name=f"up{i}_resize")(h)
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm_out")(h))
        return island(conv3x3(self.out_channels, self.dtype, "conv_out", zero=True)(h))

    def _block(self, channels: int, name: str) -> ResidualBlock:
        return ResidualBlock(
            channels, dropout=self.dropout, groups=self.groups, epsilon=self.epsilon, name=name
        )

    def _read(
        self, h: Array, text: tuple[Array, Array | None], depth: int, level: int, name: str
    ) -> Array:
        transformer = SpatialTransformer(
            depth, self.heads[level], self.groups, self.remat, name=name
        )
        return transformer(h, *text)

    def _embed(self, t: Array, vector: Array | None) -> Float[Array, "b e"]:
        width = 4 * self.channels[0]

        def mlp(features: Array, name: str) -> Array:
            h = nn.silu(dense(width, self.dtype, f"{name}1")(features))
            return dense(width, self.dtype, f"{name}2")(h)

        sinusoids = Sinusoidal(self.channels[0], shift=self.shift, cosine_first=self.cosine_first)
        embedding = mlp(sinusoids(t), "time")
        if vector is None:
            return embedding
        ends = [self.classes, self.classes + self.pooled]
        classes, pooled, sizes = jnp.split(vector, ends, axis=1)
        if self.classes:
            embedding += dense(width, self.dtype, "class", bias=False)(classes)
        if self.pooled or self.sizes:
            each = Sinusoidal(self.size_features, shift=self.shift, cosine_first=self.cosine_first)
            features = each(sizes.reshape(-1)).reshape(len(vector), self.sizes * self.size_features)
            embedding += mlp(jnp.concatenate([island(pooled), features], axis=1), "added")
        return embedding

    def _check(self, x: Array, condition: Condition) -> Array:
        """The text, once everything fits."""
        levels = len(self.channels)
        if {len(self.depths), len(self.heads)} != {levels}:
            raise ValueError(
                f"channels {self.channels}, depths {self.depths} and heads {self.heads} must have "
                "an entry for each level."
            )
        factor = 2 ** (levels - 1)
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"latents of {x.shape[1]}x{x.shape[2]} can't be halved {levels - 1} times; height "
                f"and width must be multiples of {factor}."
            )
        if condition.tokens is None:
            raise ValueError("this network reads texts: give condition.tokens [b n d].")
        given = 0 if condition.vector is None else condition.vector.shape[1]
        if given != self.vector:
            raise ValueError(
                f"condition.vector has {given} entries, and this network reads {self.vector}: "
                f"{self.classes} of classes, {self.pooled} pooled, {self.sizes} sizes."
            )
        if condition.image is not None and condition.image.shape[:3] != x.shape[:3]:
            raise ValueError(
                f"condition.image has shape {condition.image.shape} and x {x.shape}; "
                "batch, height and width must be equal."
            )
        return condition.tokens


def sd1_unet(remat: Remat = "none", dtype: Any = jnp.float32) -> LatentUNet:
    """Stable Diffusion 1.x's, 859.5 M parameters; texts of 768 features, latents 64x64x4."""
    return LatentUNet(remat=remat, dtype=dtype)


def sd2_unet(remat: Remat = "none", dtype: Any = jnp.float32) -> LatentUNet:
    """Stable Diffusion 2.x's, 865.9 M parameters; texts of 1,024 features, heads of 64 channels."""
    return LatentUNet(heads=(5, 10, 20, 20), remat=remat, dtype=dtype)


def sdxl_unet(remat: Remat = "none", dtype: Any = jnp.float32) -> LatentUNet:
    """SDXL's, 2,567 M parameters; texts of 2,048 features, latents 128x128x4.

    `condition.vector` is [pooled text (1,280), original height, width, top, left, target height,
    width].

    Source: Podell et al. 2023, table 1 and section 2.2.
    """
    return LatentUNet(
        channels=(320, 640, 1280),
        depths=(0, 2, 10),
        heads=(5, 10, 20),
        middle_depth=10,
        pooled=1280,
        sizes=6,
        remat=remat,
        dtype=dtype,
    )
