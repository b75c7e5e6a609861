"""Transformers that predict codes one by one: a picture's on the grid of a codec, row by row.

    p(k_1, ..., k_n | c) = p(k_1 | c) p(k_2 | k_1, c) ... p(k_n | k_1 .. k_{n-1}, c)            (1)

A causal transformer reads what is told, then the codes; the answer at a token is the next one's
logits. Sampling keeps the keys and values of what was read.

Sources: van den Oord et al. 2017 (arXiv:1711.00937), section 4; Esser et al. 2021
(arXiv:2012.09841), section 3.2.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion_jax.models.clip_blocks import (
    Activation,
    Cache,
    check_tower,
    empty_cache,
    exact_gelu,
    layer_norm,
    run_blocks,
    run_cached,
)
from diffusion_jax.models.layers import dense
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat
from diffusion_jax.types import Condition

_words = nn.initializers.normal(0.02)
_places = nn.initializers.normal(0.01)


class CodeTransformer(nn.Module):
    """codes [b k], condition -> logits [b k buckets], equation (1).

    What is told comes first: the words of `condition.tokens`, where there are none a learned one,
    and a first token, to which `condition.vector` is added. To sample, `start` reads that and
    `following` a code at a time, for `samplers.sample_codes`.

    Attributes:
        count: k, codes of a picture.
        buckets: kinds of codes.
        width: of the transformer's tokens.
        layers: blocks.
        heads: of each attention; they divide the width.
        vocabulary, length: ids and tokens of a text; 0 where none is told.
        activation, epsilon, hidden, remat, dtype: as in `TextTransformer`.

    Raises:
        ValueError: a condition without the tokens that it reads, or of another number of them.
    """

    count: int
    buckets: int
    width: int
    layers: int
    heads: int
    vocabulary: int = 0
    length: int = 0
    activation: Activation = exact_gelu
    epsilon: float = 1e-5
    hidden: int | None = None
    remat: Remat = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "b k"],
        condition: Condition | None = None,
        cache: Cache | None = None,
        place: Int[Array, ""] | None = None,
    ) -> Any:
        """Training's logits; with a cache, those of the last token alone, and the cache."""
        prefix = None if condition is None else self._told(condition, len(codes))
        return predict_codes(self, prefix, self.length + 1, codes, cache, place)

    def _told(self, condition: Condition, b: int) -> Float[Array, "b n width"]:
        check_tower("CodeTransformer", self.width, self.layers, self.heads)
        first = self.param("first", _words, (self.width,), jnp.float32).astype(self.dtype)
        h = jnp.broadcast_to(first[None], (b, self.width))
        if condition.image is not None or (condition.tokens is not None and not self.length):
            unread = "image" if condition.image is not None else "tokens: its length is 0"
            raise ValueError(f"CodeTransformer doesn't read a condition's {unread}.")
        if condition.vector is not None:
            h = h + dense(self.width, self.dtype, "vector")(condition.vector.astype(self.dtype))
        if not self.length:
            return h[:, None]
        ids, mask = condition.tokens, condition.mask
        if ids is None or mask is None or ids.shape[1] != self.length:
            found = "none" if ids is None else ids.shape[1]
            raise ValueError(
                f"CodeTransformer reads {self.length} tokens of a condition, which has {found}."
            )
        return jnp.concatenate([token_features(self, ids, mask), h[:, None]], axis=1)

    def start(self, condition: Condition, b: int) -> tuple[Float[Array, "b buckets"], Cache]:
        """The logits of the first code of b pictures, and the cache of what it follows."""
        cache = empty_cache(self, b, self.length + self.count)
        return self(jnp.zeros((b, 0), jnp.int32), condition, cache)

    def following(
        self, cache: Cache, code: Int[Array, " b"], i: Int[Array, ""]
    ) -> tuple[Float[Array, "b buckets"], Cache]:
        """The logits of the code after number i, and the cache with that one."""
        return self(code[:, None], None, cache, self.length + 1 + i)


def token_features(
    module: Any, ids: Int[Array, "b n"], mask: Bool[Array, "b n"]
) -> Float[Array, "b n width"]:
    """A module's features of ids, where there is none a learned one; an id too large is NaN."""
    words = module.param("words", _words, (module.vocabulary, module.width), jnp.float32)
    nothing = module.param("nothing", _words, (module.length, module.width), jnp.float32)
    h = words.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    return jnp.where(mask[:, :, None], h, nothing[None]).astype(module.dtype)


def predict_codes(
    module: Any,
    prefix: Float[Array, "b n width"] | None,
    first: int,
    codes: Int[Array, "b k"],
    cache: Cache | None,
    place: Int[Array, ""] | None,
) -> Any:
    """Equation (1)'s logits, in the compact method of a module that has `count` codes.

    Args:
        module: whose attributes say how many blocks and of what kind.
        prefix: what is told; without it `codes` is one code, and `place` says where it stands.
        first: tokens of what is told.
        codes: all of them in training, of which the last is only predicted; none at the start.
        cache: of what was read; without one all logits are answered, in training.
        place: of the one code.

    Returns:
        Logits [b k buckets]; with a cache, those of the last token [b buckets], and the cache.
    """
    h = module.param("codes", _words, (module.buckets, module.width), jnp.float32)[codes]
    most = first + module.count - 1
    places = module.param("places", _places, (most, module.width), jnp.float32)
    if prefix is not None:
        h = jnp.concatenate([prefix, h[:, : module.count - 1]], axis=1)
        h = h + places[None, : h.shape[1]]
    else:
        h = h + places[place][None, None]
    h = h.astype(module.dtype)
    if cache is None:
        h, _ = run_blocks(module, h, causal=True)
        h = h[:, -module.count :]
    else:
        h, cache = run_cached(module, h, cache, place)
        h = h[:, -1:]
    h = layer_norm(island(h), module.epsilon, "norm_out").astype(module.dtype)
    logits = island(dense(module.buckets, module.dtype, "out")(h))
    return logits if cache is None else (logits[:, 0], cache)
