"""Text into the numbers that a text encoder reads."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from diffusion_jax.data.sources import Source
from diffusion_jax.types import Tokenizer


@dataclass(frozen=True)
class Words:
    """A tokenizer of whole words: 0 pads, 1 begins, 2 ends, and words count from 3.

    Attributes:
      vocabulary: the words, each once; "," is a word where the texts have commas.
      length: how many numbers a text becomes, begin and end among them.

    >>> Words(("a", "cube", "red"), 6).encode("a red cube")
    array([1, 3, 5, 4, 2, 0], dtype=int32)
    """

    vocabulary: tuple[str, ...]
    length: int

    def __post_init__(self) -> None:
        twice = sorted({word for word in self.vocabulary if self.vocabulary.count(word) > 1})
        if twice:
            raise ValueError(f"a vocabulary has each word once, but {twice[0]!r} comes again")
        if self.length < 3:
            raise ValueError(f"length must be at least 3 (begin, a word, end), not {self.length}")

    @property
    def size(self) -> int:
        """How many numbers there are: the words and the three marks."""
        return len(self.vocabulary) + 3

    def encode(self, text: str) -> Int[np.ndarray, " length"]:
        """Begin, the words of the text, end, and zeros; a "," is split from the word it follows.

        Raises:
          ValueError: a word that isn't in the vocabulary, or more than `length - 2` words.
        """
        words = text.replace(",", " , ").split()
        if len(words) > self.length - 2:
            raise ValueError(
                f"{text!r} has {len(words)} words, and this tokenizer takes {self.length - 2}"
            )
        tokens = np.zeros(self.length, np.int32)
        tokens[0] = 1
        for place, word in enumerate(words, 1):
            tokens[place] = self._number(word)
        tokens[len(words) + 1] = 2
        return tokens

    def _number(self, word: str) -> int:
        numbers = _numbers(self.vocabulary)
        if word not in numbers:
            close = difflib.get_close_matches(word.lower(), self.vocabulary, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {len(numbers)} other words"
            raise ValueError(f"the vocabulary has no word {word!r}; {hint}")
        return numbers[word]


def tokenized(
    source: Source, tokenizer: Tokenizer, feature: str = "caption", as_: str = "tokens"
) -> Source:
    """The same source, whose records gain a text feature's tokens: int32 [length] under `as_`.

    Raises:
      ValueError: the first record has no text called `feature`, or already something called `as_`.
    """
    if len(source):
        record = source[0]
        texts = sorted(key for key, value in record.items() if isinstance(value, str))
        if feature not in texts:
            raise ValueError(
                f"{source.name} has no text feature {feature!r}; it has "
                f"{', '.join(map(repr, texts)) or 'none'}"
            )
        if as_ in record:
            raise ValueError(f"{source.name} already has a feature {as_!r}; choose another as_=")
    return _Tokenized(source, tokenizer, feature, as_)


@dataclass(frozen=True, eq=False)
class _Tokenized:
    source: Source = field(repr=False)
    tokenizer: Tokenizer
    feature: str
    as_: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    @property
    def classes(self) -> int | None:
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.source[i]
        return record | {self.as_: self.tokenizer.encode(record[self.feature])}


@functools.cache
def _numbers(vocabulary: tuple[str, ...]) -> Mapping[str, int]:
    return {word: number for number, word in enumerate(vocabulary, 3)}
