"""Conditions that are texts: token numbers, and with them a text's CLIP embedding.

A source may have several texts of one picture (`data.captioned`); training takes one at random.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.models.conditioning import Conditioning, Known, array
from diffusion_jax.random import example_keys
from diffusion_jax.types import Batch, Condition, Index, Key, Tokenizer


def one_of(key: Key, index: Index, several: Known) -> dict[str, Array]:
    """Of arrays [b texts ...] one row each, the same of all, drawn from a key of the example's."""
    count = next(iter(several.values())).shape[1]
    draw = jax.vmap(lambda k: jax.random.randint(k, (), 0, count))
    rows = draw(example_keys(key, index))
    pick = jax.vmap(lambda x, row: x[row])
    return {name: pick(jnp.asarray(values), rows) for name, values in several.items()}


def check_tokens(known: Known, length: int, vocabulary: int) -> None:
    """Raises ValueError unless the tokens are [b length] and of this vocabulary."""
    tokens = array(known, "tokens", f"b {length}", integers=True)
    for wrong in tokens[(tokens < 0) | (tokens >= vocabulary)][:1]:
        raise ValueError(f"token {wrong} is out of range: this model knows 0..{vocabulary - 1}.")


class _Ids(Conditioning):
    """`tokens` [b n], or in training [b texts n], as they are, with a mask."""

    features = ("tokens",)

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        tokens = batch["tokens"]
        return one_of(key, index, {"tokens": tokens}) if tokens.ndim == 3 else {"tokens": tokens}

    def condition(self, known: Known) -> Condition:
        tokens = jnp.asarray(known["tokens"])
        return Condition(tokens=tokens, mask=tokens != 0)


@dataclass(frozen=True)
class Text(_Ids):
    """`tokens` [b n], token numbers, as `Condition.tokens` with a mask, for a learned encoder.

    Null is the empty text, as in GLIDE (Nichol et al. 2021, arXiv:2112.10741, section 2.3).

    In training they may be [b texts n].

    Attributes:
        tokenizer: `encode("")` is null.
        drop: as in `Conditioning`.
    """

    tokenizer: Tokenizer
    drop: float = 0.1

    def null(self, known: Known) -> Condition:
        if not self.drop:
            return self.condition(known)
        empty = jnp.asarray(self.tokenizer.encode(""))[None, :]
        return self.condition({"tokens": jnp.broadcast_to(empty, known["tokens"].shape)})

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"tokens": jnp.ones((shape[0], self.tokenizer.length), jnp.int32)}

    def check(self, known: Known) -> None:
        check_tokens(known, self.tokenizer.length, self.tokenizer.size)


@dataclass(frozen=True)
class Tokens(_Ids):
    """`tokens` [b n], as `Text`, for those who have no tokenizer at hand; null has no tokens.

    In training they may be [b texts n].

    Attributes:
        vocabulary: number of ids; 0 is none.
        length: n.
        drop: as in `Conditioning`.
    """

    vocabulary: int
    length: int
    drop: float = 0.1

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"tokens": jnp.ones((shape[0], self.length), jnp.int32)}

    def check(self, known: Known) -> None:
        check_tokens(known, self.length, self.vocabulary)


@dataclass(frozen=True)
class Embedding(Conditioning):
    """`image_embedding` [b d], a CLIP's z_i of length 1, for unCLIP's decoder.

    The condition's vector is sqrt(d) z_i, whose entries are of the size of 1, and a 1; null is
    all zeros, and so is an embedding of zeros, which stands for none.

    Attributes:
        size: d.
        drop: as in `Conditioning`.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.1: dropped 10 % of the time.
    """

    size: int
    drop: float = 0.1
    features = ("image_embedding",)

    def condition(self, known: Known) -> Condition:
        z = jnp.asarray(known["image_embedding"], jnp.float32)
        there = jnp.any(z != 0, axis=1, keepdims=True)
        return Condition(vector=jnp.concatenate([z * self.size**0.5, there], axis=1))

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"image_embedding": jnp.ones((shape[0], self.size)) * self.size**-0.5}

    def check(self, known: Known) -> None:
        z = array(known, "image_embedding", f"b {self.size}")
        length = np.linalg.norm(z, axis=1)
        if not np.all((np.abs(length - 1) <= 0.02) | (length == 0)):
            raise ValueError("image_embedding must have rows of length 1, or of zeros for none.")


@dataclass(frozen=True)
class Prompt(Conditioning):
    """`tokens` [b n] and `text_embedding` [b d], a text and its CLIP embedding, for a prior.

    The condition has the tokens with a mask, and sqrt(d) z_t, whose entries are of the size of 1,
    as the vector. Null has no tokens and zeros. In training both may be of several texts,
    [b texts n] and [b texts d].

    Attributes:
        vocabulary: number of ids; 0 is none.
        length: n.
        size: d, features of the embedding, which is of length 1.
        drop: as in `Conditioning`.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2, which drops both together.
    """

    vocabulary: int
    length: int
    size: int
    drop: float = 0.1
    features = ("tokens", "text_embedding")

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        told = {name: batch[name] for name in self.features}
        return one_of(key, index, told) if told["tokens"].ndim == 3 else told

    def condition(self, known: Known) -> Condition:
        tokens = jnp.asarray(known["tokens"])
        z = jnp.asarray(known["text_embedding"], jnp.float32) * self.size**0.5
        return Condition(vector=z, tokens=tokens, mask=tokens != 0)

    def blank(self, shape: tuple[int, ...]) -> Known:
        tokens = jnp.ones((shape[0], self.length), jnp.int32)
        return {"tokens": tokens, "text_embedding": jnp.zeros((shape[0], self.size))}

    def check(self, known: Known) -> None:
        check_tokens(known, self.length, self.vocabulary)
        z = array(known, "text_embedding", f"{len(known['tokens'])} {self.size}")
        if not np.allclose(np.linalg.norm(z, axis=1), 1, atol=0.02):
            raise ValueError("text_embedding must have rows of length 1.")
