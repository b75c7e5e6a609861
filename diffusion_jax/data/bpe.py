"""CLIP's tokenizer: words become bytes, and the pairs of a learned list become one."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from jaxtyping import Int

from diffusion_jax.data import cleaning
from diffusion_jax.data.bpe_files import (
    END,
    END_OF_WORD,
    START,
    Merges,
    read_folder,
    read_merges,
)
from diffusion_jax.data.bpe_symbols import alphabet, byte_of_symbol, merged, symbol_of_byte
from diffusion_jax.data.tokenizers import numbers_before

_PUBLISHED = 48_894  # of the 262,144 in the file: 49,408 tokens less 2 * 256 bytes and two ends

# The ends by name, English contractions, runs of letters, single digits, runs of anything else.
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)
_REMEMBERED = 1 << 16  # words


@dataclass(frozen=True)
class BytePairs:
    """Byte-pair encoding as CLIP does it: [start, pieces of words..., end, pad, pad, ...].

    A text is cleaned, put in lower case and cut into words: contractions ('s, 't, ...), runs of
    letters, single digits and runs of anything else. A word's UTF-8 bytes are symbols, the last of
    them marked as the end of the word. While two neighbours are a pair of the list, those that come
    first in it (the leftmost of them) become one symbol. Every symbol is a token, so that no text
    is unknown. "<|startoftext|>" and "<|endoftext|>" within a text are the tokens of that name.

    Attributes:
      merges: the pairs, first come, first merged.
      vocabulary: the tokens; a token's number is its place.
      length: how many numbers a text becomes, start and end among them.
      pad: the number after the end: 0 in OpenAI's code, `end` in most folders of transformers.
      truncate: whether a text that is too long loses its last tokens, with a warning (whose words
        are always the same: Python shows it once); else it is an error.
      clean: what is done to a text first: `clean` (as OpenAI), `collapse` (as transformers), or
        another function of a text.

    Raises:
      ValueError: a vocabulary that lacks a byte, an end or what a merge makes or takes, or has a
        token twice; a length below 3; a pad that is no token's number.

    Source: Sennrich et al. 2016, "Neural machine translation of rare words with subword units";
    bytes as symbols: Radford et al. 2019 (GPT-2), section 2.2; lower case, 49,408 tokens and 77 to
    a text: Radford et al. 2021 (CLIP), section 2.4.

    >>> words = BytePairs.from_merges([("c", "a"), ("ca", "t</w>")])
    >>> words.encode("A cat")[:4], words.start, words.end
    (array([514, 320, 513, 515], dtype=int32), 514, 515)
    """

    merges: Merges = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)
    length: int = 77
    pad: int = 0
    truncate: bool = False
    clean: Callable[[str], str] = field(default=cleaning.clean, repr=False)

    @classmethod
    def from_vocabulary(
        cls,
        path: str | os.PathLike[str],
        *,
        merges: int = _PUBLISHED,
        length: int = 77,
        pad: int = 0,
        truncate: bool = False,
        clean: Callable[[str], str] = cleaning.clean,
    ) -> BytePairs:
        """From OpenAI's bpe_simple_vocab_16e6.txt.gz, of which CLIP uses the first 48,894 merges.

        Start is 49406, end 49407.

        Raises:
          FileNotFoundError: no such file; the message says where it comes from.
          ValueError: it isn't a list of merges, or has fewer than `merges`.
        """
        pairs = read_merges(path, merges)
        return cls.from_merges(pairs, length=length, pad=pad, truncate=truncate, clean=clean)

    @classmethod
    def from_merges(
        cls,
        merges: Iterable[tuple[str, str]],
        *,
        length: int = 77,
        pad: int = 0,
        truncate: bool = False,
        clean: Callable[[str], str] = cleaning.clean,
    ) -> BytePairs:
        """With CLIP's numbers: 256 bytes, 256 bytes that end a word, the merges, start, end."""
        pairs = tuple((left, right) for left, right in merges)
        symbols = alphabet()
        made = tuple(left + right for left, right in pairs)
        vocabulary = (*symbols, *(s + END_OF_WORD for s in symbols), *made, START, END)
        return cls(pairs, vocabulary, length, pad, truncate, clean)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        length: int = 77,
        pad: int | None = None,
        truncate: bool = False,
        clean: Callable[[str], str] = cleaning.clean,
    ) -> BytePairs:
        """From a checkpoint's folder: tokenizer.json, or vocab.json and merges.txt.

        A `pad_token` that a text may hold ("!" in some checkpoints) stays an ordinary symbol there.

        Args:
          path: the folder.
          length: how many numbers a text becomes.
          pad: the number that fills up; else what special_tokens_map.json or tokenizer_config.json
            call the `pad_token`, the latter first where it lists its added tokens; else the end, as
            transformers does.
          truncate: whether a text that is too long loses its last tokens.
          clean: what is done to a text first; `collapse` for the numbers that transformers gives.

        Raises:
          FileNotFoundError: the folder has no tokenizer.
          ValueError: it isn't CLIP's kind, it is inconsistent, or it has tokens of its own.
        """
        merges, vocabulary, named = read_folder(path)
        for token in (END, named):
            if token is not None and token not in vocabulary:
                raise ValueError(f"the vocabulary in {path} has no token {token!r}")
        if pad is None:
            pad = vocabulary.index(named or END)
        try:
            return cls(merges, vocabulary, length, pad, truncate, clean)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __post_init__(self) -> None:
        numbers = self._numbers
        if len(numbers) < len(self.vocabulary):
            raise ValueError(
                f"a vocabulary has each token once, but this one has {len(numbers)} different "
                f"tokens in {len(self.vocabulary)}"
            )
        single = [symbol + ending for symbol in alphabet() for ending in ("", END_OF_WORD)]
        for token in (START, END, *single):
            if token not in numbers:
                raise ValueError(f"the vocabulary has no token {token!r}")
        for left, right in self.merges:
            for token in (left, right, left + right):
                if token not in numbers:
                    raise ValueError(
                        f"merges and vocabulary don't belong together: {left!r} and {right!r} "
                        f"merge, but there is no token {token!r}"
                    )
        if self.length < 3:
            raise ValueError(f"length must be at least 3 (start, a token, end), not {self.length}")
        if not 0 <= self.pad < self.size:
            raise ValueError(f"pad must be in 0..{self.size - 1}, not {self.pad}")

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.vocabulary)

    @property
    def start(self) -> int:
        """The number before every text: `size - 2` in CLIP's vocabulary."""
        return self._numbers[START]

    @property
    def end(self) -> int:
        """The number after every text: `size - 1` in CLIP's vocabulary."""
        return self._numbers[END]

    def encode(self, text: str) -> Int[np.ndarray, " length"]:
        """Start, the tokens of the text, end, and `pad` up to `length`.

        Raises:
          ValueError: more than `length - 2` tokens, unless `truncate`; half of a surrogate pair.
        """
        try:
            pieces = [n for word in _cut(self.clean(text).lower()) for n in self._pieces(word)]
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{text!r} holds half of a surrogate pair, which is no text"
            ) from error
        room = self.length - 2
        if len(pieces) > room:
            if not self.truncate:
                raise ValueError(
                    f"{text[:200]!r} has {len(pieces)} tokens, and this tokenizer takes {room}; "
                    "truncate=True would leave its end out"
                )
            warnings.warn(
                f"a text has more than {room} tokens: what comes after them is left out",
                stacklevel=2,
            )
        tokens = np.full(self.length, self.pad, np.int32)
        whole = [self.start, *pieces[:room], self.end]
        tokens[: len(whole)] = whole
        return tokens

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of tokens [n] up to the first end: in lower case, a space after every word.

        Bytes that are no UTF-8, as a cut may leave them, become U+FFFD.

        Raises:
          ValueError: not integers of one text, or one that is no token's number.
        """
        data = bytearray()
        for number in numbers_before(ids, self.size, self.end):
            if number == self.start:
                continue
            token = self.vocabulary[number]
            data += bytes(byte_of_symbol()[symbol] for symbol in token.removesuffix(END_OF_WORD))
            data += b" " if token.endswith(END_OF_WORD) else b""
        return data.decode(errors="replace").strip(" ")

    @functools.cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {token: number for number, token in enumerate(self.vocabulary)}

    @functools.cached_property
    def _ranks(self) -> Mapping[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @functools.cached_property
    def _remembered(self) -> dict[str, tuple[int, ...]]:
        return {}

    def _pieces(self, word: str) -> tuple[int, ...]:
        if word in (START, END):
            return (self._numbers[word],)
        if (known := self._remembered.get(word)) is not None:
            return known
        symbols = [symbol_of_byte()[byte] for byte in word.encode()]
        symbols[-1] += END_OF_WORD
        pieces = tuple(self._numbers[symbol] for symbol in merged(symbols, self._ranks))
        if len(self._remembered) >= _REMEMBERED:
            self._remembered.clear()
        self._remembered[word] = pieces
        return pieces


def _cut(text: str) -> Iterator[str]:
    found = cleaning.pattern(_WORDS, ignore_case=True).finditer(text)
    return (match.group() for match in found)
