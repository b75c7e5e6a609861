"""The diffusion transformer: patches of a picture as tokens, told by adaptive norms.

A block is, with (shift, scale, gate) a linear function of SiLU(c) that starts at zero,

    h = h + gate1 * attention(modulate(norm(h), shift1, scale1))                                (1)
    h = h + cross(norm(h), tokens)                      where the condition has tokens           (2)
    h = h + gate2 * MLP(modulate(norm(h), shift2, scale2)),  modulate(h, a, b) = h (1 + b) + a   (3)

and c = embed(t) + project(condition.vector).

Sources: Peebles & Xie 2022 (arXiv:2212.09748), sections 3.2 and 4; Chen et al. 2023, PixArt-alpha
(arXiv:2310.00426), section 2.3, for (2).
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion_jax.models.attention import MultiHead
from diffusion_jax.models.cuts import STACK
from diffusion_jax.models.layers import Sinusoidal, dense
from diffusion_jax.models.patches import cut_patches, join_patches
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat, stacked
from diffusion_jax.types import Condition

_embedding = nn.initializers.normal(0.02)


class DiT(nn.Module):
    """(x [b h w c], t [b], condition) -> y [b h w out_channels], float32.

    Attributes:
        out_channels: of the answer: the picture's, twice that with learned variance.
        size: height and width of the pictures; each patch has a learned position, which starts
            as its sines and cosines.
        patch: height and width of a patch.
        width: of the tokens.
        depth: blocks.
        heads: of each attention; they divide the width.
        mlp: width of the hidden layer, in units of `width`.
        remat: what the gradient computes again instead of keeping: "none", all but the matrix
            products ("dots"), or everything inside a block ("full").
        time_features: t [b] -> features [b f].
        dtype: of the computation; parameters, norms, the softmax and y are float32.

    `condition.vector` is projected and added to the time embedding, `condition.image` is
    concatenated to x's channels, `condition.tokens` (with `mask`) are read by cross-attention.
    The blocks are one, scanned over stacked parameters [depth, ...].

    Raises:
        ValueError: x isn't `size` by `size`, the patch doesn't divide it, the width isn't a
            multiple of 4 and of the heads, or `condition.image` has another size than x.
    """

    out_channels: int
    size: int
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp: int = 4
    remat: Remat = "none"
    time_features: Callable[[Array], Array] = Sinusoidal(256, shift=0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        condition: Condition = Condition(),
    ) -> Float[Array, "b h w out"]:
        self._check(x, condition)
        b, p, side = x.shape[0], self.patch, self.size // self.patch
        if condition.image is not None:
            x = jnp.concatenate([x, condition.image.astype(x.dtype)], axis=-1)
        c = self._embed(t, condition)

        h = dense(self.width, self.dtype, "patches")(cut_patches(x.astype(self.dtype), p))
        places = self.param(
            "positions", lambda key: jnp.asarray(positions(side, self.width), jnp.float32)
        )
        h = h + places[None].astype(self.dtype)

        tokens = condition.tokens
        if tokens is not None:
            tokens = dense(self.width, self.dtype, "tokens")(tokens.astype(self.dtype))
        h = self._blocks(h, c, tokens, condition.mask)

        shift, scale = _told(c, 2, self.width, self.dtype, "final")
        h = dense(p * p * self.out_channels, self.dtype, "answer", zero=True)(
            _modulate(_norm(h), shift, scale)
        )
        return join_patches(island(h).reshape(b, side, side, p, p, self.out_channels))

    def _embed(self, t: Array, condition: Condition) -> Array:
        def project(features, name):
            return nn.Dense(self.width, dtype=self.dtype, kernel_init=_embedding, name=name)(
                features
            )

        c = project(nn.silu(project(self.time_features(t), "time1")), "time2")
        return c if condition.vector is None else c + project(condition.vector, "vector")

    def _blocks(
        self, h: Array, c: Array, tokens: Array | None, mask: Array | None
    ) -> Float[Array, "b n width"]:
        blocks = stacked(Block, self.depth, self.remat, initializing=self.is_initializing())
        return blocks(self.heads, self.mlp, name=STACK)(h, c, tokens, mask)[0]

    def _check(self, x: Array, condition: Condition) -> None:
        if x.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"pictures of {x.shape[1]}x{x.shape[2]} for a DiT that has learned the positions "
                f"of {self.size}x{self.size}; make it with size={x.shape[1]}."
            )
        if self.size % self.patch:
            raise ValueError(f"patches of {self.patch} don't divide a size of {self.size}.")
        if self.width % 4 or self.width % self.heads:
            raise ValueError(
                f"a width of {self.width} must be a multiple of 4 and of the {self.heads} heads."
            )
        if condition.image is not None and condition.image.shape[:3] != x.shape[:3]:
            raise ValueError(
                f"condition.image has shape {condition.image.shape} and x {x.shape}; "
                "batch, height and width must be equal."
            )


class Block(nn.Module):
    """Equations (1) to (3), as the body of a scan: (h, None)."""

    heads: int
    mlp: int

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b n width"],
        c: Float[Array, "b width"],
        tokens: Float[Array, "b m width"] | None,
        mask: Bool[Array, "b m"] | None,
    ) -> tuple[Float[Array, "b n width"], None]:
        width, dtype = h.shape[-1], h.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = _told(c, 6, width, dtype, "modulation")

        told = _modulate(_norm(h), shift1, scale1)
        h = h + gate1 * MultiHead(self.heads, name="self")(told, told)
        if tokens is not None:
            h = h + MultiHead(self.heads, zero=True, name="cross")(_norm(h), tokens, mask)
        told = _modulate(_norm(h), shift2, scale2)
        hidden = nn.gelu(dense(self.mlp * width, dtype, "mlp1")(told))
        return h + gate2 * dense(width, dtype, "mlp2")(hidden), None


def _told(c: Array, parts: int, width: int, dtype: Any, name: str) -> list[Array]:
    """`parts` vectors [b 1 width] of the embedding c; zeros at the start."""
    vectors = dense(parts * width, dtype, name, zero=True)(nn.silu(c))
    return jnp.split(vectors[:, None, :], parts, axis=-1)


def _norm(h: Float[Array, "b n width"]) -> Float[Array, "b n width"]:
    """Layer norm without parameters; statistics in float32."""
    y = island(h)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    return y.astype(h.dtype)


def _modulate(h: Array, shift: Array, scale: Array) -> Array:
    return h * (1 + scale) + shift


def positions(side: int, width: int) -> np.ndarray:
    """[side * side, width]: sines and cosines of the row, then of the column, a quarter each.

    Source: Vaswani et al. 2017, section 3.5, in two dimensions (Dosovitskiy et al. 2020).
    """
    frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    angle = np.arange(side)[:, None] * frequency[None, :]
    one = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    row = np.repeat(one, side, axis=0)
    column = np.tile(one, (side, 1))
    return np.concatenate([row, column], axis=-1).astype(np.float32)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


def dit(
    name: Literal["S", "B", "L", "XL"],
    patch: int,
    size: int = 32,
    out_channels: int = 8,
    *,
    remat: Remat = "none",
    dtype: Any = jnp.float32,
) -> DiT:
    """A DiT of a published size, such as dit("XL", 2), 675 M parameters with 1,000 classes.

    The defaults are the paper's latents of 256x256 pictures, 32x32x4 with learned variance; t in
    table steps 0..999.

    Source: Peebles & Xie 2022, table 1.
    """
    width, depth, heads = _SIZES[name]
    return DiT(out_channels, size, patch, width, depth, heads, remat=remat, dtype=dtype)
