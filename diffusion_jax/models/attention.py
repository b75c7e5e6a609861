"""Attention: of pixels to each other and to tokens, of tokens, and of a mean to its pixels.

Each computes in the dtype of its input; the softmax is float32 (`attend`). Projections that end
a residual branch start at zero.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_jax.models.attend import attend
from diffusion_jax.models.layers import GroupNorm, dense


class Attention(nn.Module):
    """Pixels attend to each other, or to tokens when these are given; residual.

    softmax(q k^T / sqrt(d)) v in heads of d channels, projected from zero.

    Attributes:
        head_channels: d; None is one head.
        groups, epsilon: of the norm.

    Source: Vaswani et al. 2017; Rombach et al. 2022 (arXiv:2112.10752), section 3.3.
    """

    head_channels: int | None = None
    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        tokens: Float[Array, "b n d"] | None = None,
        mask: Bool[Array, "b n"] | None = None,
    ) -> Float[Array, "b h w c"]:
        b, height, width, c = x.shape
        d = _head_size(c, self.head_channels)

        def heads(v):
            return v.reshape(b, -1, c // d, d)

        pixels = GroupNorm(self.groups, self.epsilon, name="norm")(x).reshape(b, height * width, c)
        source = pixels if tokens is None else tokens.astype(x.dtype)
        q = heads(dense(c, x.dtype, "query")(pixels))
        k, v = (heads(dense(c, x.dtype, name)(source)) for name in ("key", "value"))
        y = attend(q, k, v, mask).reshape(b, height, width, c)
        return x + dense(c, x.dtype, "out", zero=True)(y)


class TransformerBlock(nn.Module):
    """h + attention(norm(h)), then h + MLP(norm(h)), over the real tokens; zero at the start.

    Attributes:
        heads: of the attention; they divide the width.

    Source: Vaswani et al. 2017, with the norms inside the branches (Xiong et al. 2020,
    arXiv:2002.04745).
    """

    heads: int

    @nn.compact
    def __call__(
        self, h: Float[Array, "b n width"], mask: Bool[Array, "b n"]
    ) -> Float[Array, "b n width"]:
        b, n, width = h.shape
        if width % self.heads:
            raise ValueError(f"a width of {width} can't be cut into {self.heads} heads.")

        normed = nn.LayerNorm(dtype=h.dtype, name="norm1")(h)
        q, k, v = (
            dense(width, h.dtype, name)(normed).reshape(b, n, self.heads, -1)
            for name in ("query", "key", "value")
        )
        y = attend(q, k, v, mask).reshape(b, n, width)
        h = h + dense(width, h.dtype, "out", zero=True)(y)

        normed = nn.LayerNorm(dtype=h.dtype, name="norm2")(h)
        y = nn.gelu(dense(4 * width, h.dtype, "mlp1")(normed))
        return h + dense(width, h.dtype, "mlp2", zero=True)(y)


class MultiHead(nn.Module):
    """W softmax(q k^T / sqrt(d)) v: tokens read a source of tokens, themselves or others.

    Attributes:
        heads: they divide the width.
        zero: whether W starts at zero.
        bias: whether queries, keys and values have one.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    heads: int
    zero: bool = False
    bias: bool = True

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "b n width"],
        source: Float[Array, "b m d"],
        mask: Bool[Array, "b m"] | None = None,
    ) -> Float[Array, "b n width"]:
        b, n, width = h.shape

        def heads(v: Array, name: str) -> Array:
            y = dense(width, h.dtype, name, bias=self.bias)(v)
            return y.reshape(b, -1, self.heads, width // self.heads)

        y = attend(heads(h, "query"), heads(source, "key"), heads(source, "value"), mask)
        return dense(width, h.dtype, "out", zero=self.zero)(y.reshape(b, n, width))


class AttentionPool(nn.Module):
    """A picture's pixels as one vector, which their mean asks for.

        h = [mean x_i, x_1, ..., x_n] + positions,  y = W softmax(q_0 k^T / sqrt(d)) v        (1)

    Attributes:
        features: of the answer.
        head_channels: d; None is one head.

    Raises:
        ValueError: the channels can't be cut into such heads, or the parameters were made for
            pictures of another size: each position is learned.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 2.2.
    """

    features: int
    head_channels: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b features"]:
        b, height, width, c = x.shape
        d = _head_size(c, self.head_channels)
        n = height * width
        if self.has_variable("params", "positions"):
            known = self.get_variable("params", "positions").shape[0] - 1
            if known != n:
                raise ValueError(
                    f"the attention pool has learned {known} positions, and is given {n} "
                    f"({height}x{width}); pictures must have the size it was made for."
                )
        init = nn.initializers.normal(c**-0.5)
        positions = self.param("positions", init, (n + 1, c), jnp.float32).astype(x.dtype)
        pixels = x.reshape(b, n, c)
        h = jnp.concatenate([pixels.mean(1, keepdims=True), pixels], axis=1) + positions[None]
        q, k, v = (
            dense(c, x.dtype, name)(source).reshape(b, -1, c // d, d)
            for name, source in (("query", h[:, :1]), ("key", h), ("value", h))
        )
        y = attend(q, k, v).reshape(b, c)
        return dense(self.features, x.dtype, "out")(y)


def _head_size(channels: int, head_channels: int | None) -> int:
    d = head_channels or channels
    if channels % d:
        raise ValueError(f"{channels} channels can't be cut into heads of {d} (head_channels).")
    return d
