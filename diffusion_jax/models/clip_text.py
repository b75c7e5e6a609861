"""CLIP's texts by a causal transformer, which answers where a text ends.

    h_0 = words[ids] + places,  e = P norm(h_L)_i,  i the first place of the id `end`           (1)

Source: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.4.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.models.clip_blocks import (
    Activation,
    Encoding,
    check_tower,
    encoding,
    layer_norm,
    quick_gelu,
    run_blocks,
)
from diffusion_jax.models.clip_vision import projected
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat


class TextTransformer(nn.Module):
    """ids [b n] integers -> Encoding, n tokens, n at most `length`.

    A token knows those before it alone, so what follows `end` doesn't matter. An id outside of the
    vocabulary gives NaN, and so does a text without `end` for `embedding` and `pooled`.

    Attributes:
        features: of the embedding; None leaves the token's `width` unprojected.
        vocabulary: number of ids.
        length: the most tokens.
        width: of the tokens.
        layers: blocks.
        heads: of each attention; they divide the width.
        end: the id that ends a text; the first one counts.
        activation: of the MLPs.
        epsilon: of the norms.
        hidden: width of the MLPs' hidden layers; by default 4 width.
        remat: "none", "dots" or "full", as `DiT`'s.
        dtype: of the computation; parameters and what comes out are float32.

    Raises:
        ValueError: ids that aren't integers [b n], none or more than `length` of them, an `end`
            outside of the vocabulary, or heads that don't divide the width.

    Source: equation (1) above.
    """

    features: int | None
    vocabulary: int
    length: int
    width: int
    layers: int
    heads: int
    end: int
    activation: Activation = quick_gelu
    epsilon: float = 1e-5
    hidden: int | None = None
    remat: Remat = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"]) -> Encoding:
        self._check(tokens)
        n = tokens.shape[1]
        words, places = (
            self.param(name, nn.initializers.normal(std), (rows, self.width), jnp.float32)
            for name, std, rows in (
                ("words", 0.02, self.vocabulary),
                ("places", 0.01, self.length),
            )
        )
        h = words.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        h = (h + places[None, :n]).astype(self.dtype)
        h, before = run_blocks(self, h, causal=True)
        y = layer_norm(island(h), self.epsilon, "norm_out")

        ends = tokens == self.end
        last = jnp.argmax(ends, axis=1)
        pooled = jnp.take_along_axis(y, last[:, None, None], axis=1)[:, 0]
        pooled = jnp.where(ends.any(1)[:, None], pooled, jnp.nan)
        return encoding(projected(pooled, self.features, self.dtype), y, before)

    def _check(self, tokens: Array) -> None:
        check_tower("TextTransformer", self.width, self.layers, self.heads)
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"TextTransformer reads integer ids [b n], and is given {tokens.dtype} of shape "
                f"{tokens.shape}."
            )
        n = tokens.shape[1]
        if not 1 <= n <= self.length:
            raise ValueError(
                f"texts have {n} tokens; this TextTransformer reads 1 to {self.length}."
            )
        if not 0 <= self.end < self.vocabulary:
            raise ValueError(
                f"texts end with the id {self.end}, outside of a vocabulary of {self.vocabulary}."
            )
