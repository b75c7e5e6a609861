"""unCLIP's priors: from a text to the CLIP embedding of a picture that would fit it.

Both are causal transformers over the text's tokens and its own embedding z_t. The diffusion prior
reads the noised embedding too, and answers the clean one at a learned last token; the
autoregressive prior goes on with the embedding's codes (`quantization.PrincipalCodes`), one by one.

Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.models.clip_blocks import (
    Activation,
    Cache,
    check_tower,
    empty_cache,
    exact_gelu,
    layer_norm,
    run_blocks,
)
from diffusion_jax.models.code_transformer import predict_codes, token_features
from diffusion_jax.models.layers import Sinusoidal, dense
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat
from diffusion_jax.types import Condition

_words = nn.initializers.normal(0.02)
_places = nn.initializers.normal(0.01)


class _Sequence(nn.Module):
    """What both priors share: sizes, the text at the beginning, the blocks.

    Attributes:
        features: d, of z_t and of the embedding that is predicted.
        vocabulary: number of ids.
        length: tokens of a text.
        width: of the transformer's tokens.
        layers: blocks.
        heads: of each attention; they divide the width.
        activation, epsilon, hidden, remat, dtype: as in `TextTransformer`.
    """

    features: int
    vocabulary: int
    length: int
    width: int
    layers: int
    heads: int
    activation: Activation = exact_gelu
    epsilon: float = 1e-5
    hidden: int | None = None
    remat: Remat = "none"
    dtype: Any = jnp.float32

    def _text(self, condition: Condition) -> Float[Array, "b n width"]:
        """The text's tokens, where there are none a learned one, and z_t as the last."""
        check_tower(type(self).__name__, self.width, self.layers, self.heads)
        ids, mask, z = condition.tokens, condition.mask, condition.vector
        if ids is None or mask is None or z is None:
            raise ValueError(
                f"{type(self).__name__} reads a condition's tokens, mask and vector (`Prompt`)."
            )
        if ids.shape[1] != self.length or z.shape[1] != self.features:
            raise ValueError(
                f"{type(self).__name__} reads {self.length} tokens and {self.features} features; "
                f"the condition has {ids.shape[1]} and {z.shape[1]}."
            )
        h = token_features(self, ids, mask)
        z = dense(self.width, self.dtype, "text")(z.astype(self.dtype))
        return jnp.concatenate([h.astype(self.dtype), z[:, None]], axis=1)


class DiffusionPrior(_Sequence):
    """(x [b d], t [b], condition) -> [b d], what a causal transformer says at its last token.

    The tokens are the text's, z_t's, the time's, x's and a learned one. The condition is
    `Prompt`'s: without text its places hold learned tokens, and z_t is zeros.

    Source: Ramesh et al. 2022, section 2.2, the diffusion prior.
    """

    time_features: Callable[[Array], Array] = Sinusoidal(128)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], t: Float[Array, " b"], condition: Condition
    ) -> Float[Array, "b d"]:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"DiffusionPrior reads [b {self.features}], not {list(x.shape)}.")
        text = self._text(condition)
        time = nn.silu(dense(self.width, self.dtype, "time1")(self.time_features(t)))
        last = self.param("query", _words, (self.width,), jnp.float32).astype(self.dtype)
        others = [
            dense(self.width, self.dtype, "time2")(time),
            dense(self.width, self.dtype, "embedding")(x.astype(self.dtype)),
            jnp.broadcast_to(last[None], (len(x), self.width)),
        ]
        h = jnp.concatenate([text, jnp.stack(others, axis=1)], axis=1)
        places = self.param("places", _places, h.shape[1:], jnp.float32)
        h, _ = run_blocks(self, h + places[None].astype(h.dtype), causal=True)
        y = layer_norm(island(h[:, -1:]), self.epsilon, "norm_out")[:, 0]
        return island(dense(self.features, self.dtype, "out")(y.astype(self.dtype)))


class CodePrior(_Sequence):
    """codes [b k], condition, alignment [b] -> logits [b k buckets], each from the codes before.

    The tokens are the text's, z_t's, one for the bucket that z_t . z_i is in (`alignment`, from 0;
    -1 is none), and the codes. To sample, `start` reads the text and `following` a code at a time,
    with a cache of keys and values.

    Attributes:
        count: k, codes of an embedding.
        buckets: of a code.
        alignments: buckets of z_t . z_i.

    Source: Ramesh et al. 2022, section 2.2, the autoregressive prior.
    """

    count: int = 1
    buckets: int = 1024
    alignments: int = 16

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "b k"],
        condition: Condition | None = None,
        alignment: Int[Array, " b"] | None = None,
        cache: Cache | None = None,
        place: Int[Array, ""] | None = None,
    ) -> Any:
        """Training's logits; with a cache, those of the last token alone, and the cache."""
        prefix = None
        if condition is not None and alignment is not None:
            kinds = (self.alignments + 1, self.width)
            close = self.param("alignment", _words, kinds, jnp.float32)[alignment + 1]
            prefix = jnp.concatenate([self._text(condition), close[:, None]], axis=1)
        return predict_codes(self, prefix, self.length + 2, codes, cache, place)

    def start(
        self, condition: Condition, alignment: Int[Array, " b"]
    ) -> tuple[Float[Array, "b buckets"], Cache]:
        """The logits of the first code, and the cache of what it follows."""
        b = len(alignment)
        cache = empty_cache(self, b, self.length + 1 + self.count)
        return self(jnp.zeros((b, 0), jnp.int32), condition, alignment, cache)

    def following(
        self, cache: Cache, code: Int[Array, " b"], i: Int[Array, ""]
    ) -> tuple[Float[Array, "b buckets"], Cache]:
        """The logits of the code after number i, and the cache with that one."""
        return self(code[:, None], None, None, cache, self.length + 2 + i)
