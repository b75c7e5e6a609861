"""Learned encoders of raw conditions: words and boxes as the tokens that networks attend to.

An encoder is a module condition -> condition, and `Encoded` trains one with its network. The
pooled vector joins the time embedding, the tokens are read by cross-attention.

Sources: Nichol et al. 2021, GLIDE (arXiv:2112.10741), section 3; Vaswani et al. 2017
(arXiv:1706.03762); Rombach et al. 2022 (arXiv:2112.10752), section 4.3.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_jax.models.attention import TransformerBlock
from diffusion_jax.models.layers import dense
from diffusion_jax.models.precision import island
from diffusion_jax.types import Condition

small = nn.initializers.normal(0.02)
whole = nn.initializers.normal(1.0)  # small words would drown in what the blocks soon add to them


class Encoded(nn.Module):
    """(x, t, condition) -> network(x, t, encoder(condition)).

    Their parameters lie under "encoder" and "network", so that a sampler may encode once, with
    the encoder alone, and call the network alone at every step.

    Attributes:
        encoder: raw condition -> condition.
        network: called as (x, t, condition).
    """

    encoder: nn.Module
    network: nn.Module

    def __call__(self, x: Array, t: Array, condition: Condition = Condition()) -> Array:
        return self.network(x, t, self.encoder(condition))


class Located(nn.Module):
    """(x, t, condition) -> the answer of a network that also sees where each pixel is.

    Row and column, from -1 to 1, follow the channels of `condition.image`: without them pixels
    know their place by the zeros around the picture alone, and boxes in tokens are hard to find.

    Attributes:
        network: called as (x, t, condition).

    Source: Liu et al. 2018 (arXiv:1807.03247), section 3.
    """

    network: nn.Module

    def __call__(self, x: Array, t: Array, condition: Condition = Condition()) -> Array:
        b, h, w, _ = x.shape
        row, column = (jnp.linspace(-1.0, 1.0, n, dtype=jnp.float32) for n in (h, w))
        place = jnp.stack(jnp.meshgrid(row, column, indexing="ij"), axis=-1)
        image = jnp.broadcast_to(place[None], (b, h, w, 2))
        if condition.image is not None:
            image = jnp.concatenate([condition.image, image], axis=-1)
        return self.network(x, t, condition._replace(image=image))


class TextEncoder(nn.Module):
    """Token ids as features, by a small bidirectional transformer on words that know their
    neighbours.

    tokens [b n] integers, mask [b n] -> tokens [b n width], mask, vector [b width]. The vector is
    the output at the first token, which is always real (a text's begin); a vector that the
    condition already has follows it. An id outside the vocabulary gives NaN.

    Attributes:
        vocabulary: number of ids.
        width: of the features.
        layers: of self-attention and MLP.
        heads: of each attention.
        length: the most tokens.
        neighbours: words to each side that a convolution adds before the first layer. Without it
            a layer must learn to look at the next word before the picture can learn anything
            from "a red cube" in which red is asked for.
        dtype: of the computation; parameters and what comes out are float32.

    Source: Olsson et al. 2022 (arXiv:2209.11895), section on smeared keys, for the neighbours.

    Raises:
        ValueError: no tokens, tokens that aren't integers [b n], none, or more than `length`.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    length: int
    neighbours: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, condition: Condition) -> Condition:
        ids = _tokens(condition, "TextEncoder")
        if ids.ndim != 2 or not jnp.issubdtype(ids.dtype, jnp.integer):
            raise ValueError(
                f"TextEncoder reads integer ids [b n], and condition.tokens is {ids.dtype} of "
                f"shape {ids.shape}."
            )
        n = ids.shape[1]
        if not 1 <= n <= self.length:
            raise ValueError(f"texts have {n} tokens; this TextEncoder reads 1 to {self.length}.")
        mask = _mask(condition, ids).at[:, 0].set(True)

        words = self.param("words", whole, (self.vocabulary, self.width), jnp.float32)
        places = self.param("places", whole, (self.length, self.width), jnp.float32)
        h = jnp.where(mask[:, :, None], jnp.take(words, ids, axis=0) + places[None, :n], 0.0)
        h = h.astype(self.dtype)
        window = (2 * self.neighbours + 1,)
        h = h + nn.Conv(self.width, window, dtype=self.dtype, name="neighbours")(h)
        for i in range(self.layers):
            h = TransformerBlock(self.heads, name=f"block{i}")(h, mask)
        h = nn.LayerNorm(name="norm_out")(island(h))
        return condition._replace(tokens=h, mask=mask, vector=_join(h[:, 0], condition.vector))


class WithEmbedding(nn.Module):
    """A text's tokens, and after them a few that are made of the condition's vector.

    The vector, `Embedding`'s, follows the text's own too, and so joins the time embedding: the two
    ways by which unCLIP's decoder reads a CLIP's embedding of a picture.

    Attributes:
        text: encoder of the tokens.
        extra: tokens that the vector becomes.

    Raises:
        ValueError: the condition has no vector.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.1.
    """

    text: TextEncoder
    extra: int = 4

    @nn.compact
    def __call__(self, condition: Condition) -> Condition:
        if condition.vector is None:
            raise ValueError("WithEmbedding reads condition.vector, and the condition has none.")
        told: Any = self.text(condition)
        b, width = len(condition.vector), self.text.width
        more = dense(self.extra * width, self.text.dtype, "extra")(condition.vector)
        tokens = [told.tokens, island(more).reshape(b, self.extra, width)]
        mask = [told.mask, jnp.ones((b, self.extra), bool)]
        return told._replace(tokens=jnp.concatenate(tokens, 1), mask=jnp.concatenate(mask, 1))


# gamma(v) = (sin(2^k pi v), cos(2^k pi v)), k = 0..frequencies - 1                           (1)
# Mildenhall et al. 2020 (arXiv:2003.08934), equation (4).
def corner_features(
    corners: Float[Array, "b n 4"], frequencies: int
) -> Float[Array, "b n 8*{frequencies}"]:
    """Equation (1) of each corner, corners in [0, 1]; float32."""
    scale = jnp.pi * 2.0 ** jnp.arange(frequencies, dtype=jnp.float32)
    angle = island(corners)[..., None] * scale[None, None, None, :]
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return features.reshape(*corners.shape[:2], 8 * frequencies)


class LayoutEncoder(nn.Module):
    """A set of labelled boxes as features; their order doesn't matter.

    tokens [b n 4 + classes] (x0, y0, x1, y1 in [0, 1], then the label as one-hot), mask [b n]
    -> tokens [b n+1 width], mask [b n+1], vector [b width]. The last token is learned and always
    real, so a layout without boxes is a learned null. The vector is the mean of the real tokens;
    a vector that the condition already has follows it.

    Attributes:
        classes: of the labels.
        width: of the features.
        frequencies: of the corners' Fourier features, equation (1).
        layers: of self-attention and MLP, by which boxes know each other; 0 is none.
        heads: of each attention.
        dtype: of the computation; parameters and what comes out are float32.

    Raises:
        ValueError: no tokens, or tokens that aren't [b n 4 + classes].
    """

    classes: int
    width: int
    frequencies: int = 8
    layers: int = 2
    heads: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, condition: Condition) -> Condition:
        boxes = _tokens(condition, "LayoutEncoder")
        if boxes.ndim != 3 or boxes.shape[2] != 4 + self.classes:
            raise ValueError(
                f"LayoutEncoder reads boxes [b n {4 + self.classes}], 4 corners and "
                f"{self.classes} classes, and condition.tokens has shape {boxes.shape}."
            )
        b = boxes.shape[0]
        mask = jnp.concatenate([_mask(condition, boxes), jnp.ones((b, 1), bool)], axis=1)

        corners, label = boxes[..., :4], island(boxes[..., 4:])
        features = jnp.concatenate([corner_features(corners, self.frequencies), label], axis=-1)
        h = nn.gelu(dense(self.width, self.dtype, "box1")(features))
        h = dense(self.width, self.dtype, "box2")(h)
        learned = self.param("learned", small, (1, 1, self.width), jnp.float32).astype(self.dtype)
        h = jnp.concatenate([h, jnp.broadcast_to(learned, (b, 1, self.width))], axis=1)
        for i in range(self.layers):
            h = TransformerBlock(self.heads, name=f"block{i}")(h, mask)
        h = nn.LayerNorm(name="norm_out")(island(h))

        real = jnp.where(mask[:, :, None], h, 0.0)
        pooled = real.sum(1) / mask.sum(1, keepdims=True)
        return condition._replace(tokens=h, mask=mask, vector=_join(pooled, condition.vector))


def _tokens(condition: Condition, reader: str) -> Array:
    if condition.tokens is None:
        raise ValueError(f"{reader} reads condition.tokens, and the condition has none.")
    return condition.tokens


def _mask(condition: Condition, tokens: Array) -> Bool[Array, "b n"]:
    """The condition's mask, by default all real."""
    if condition.mask is None:
        return jnp.ones(tokens.shape[:2], bool)
    if condition.mask.shape != tokens.shape[:2]:
        raise ValueError(
            f"condition.mask has shape {condition.mask.shape} and condition.tokens "
            f"{tokens.shape}; batch and number of tokens must be equal."
        )
    return condition.mask


def _join(pooled: Array, vector: Array | None) -> Float[Array, "b d"]:
    return pooled if vector is None else jnp.concatenate([pooled, vector], axis=-1)
