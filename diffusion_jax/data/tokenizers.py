"""Text into the numbers that a text encoder reads."""

from __future__ import annotations

import collections
import difflib
import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from jaxtyping import Int

from diffusion_jax.data.cleaning import pattern
from diffusion_jax.data.sources import Source
from diffusion_jax.data.views import mapped
from diffusion_jax.types import Tokenizer

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

# Letters, marks and digits, joined by apostrophes and hyphens; else a character as readers see it.
_WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}_]+)*|(?!\s)\X"


def commas_apart(text: str) -> list[str]:
    """The words between white space, with "," a word of its own; case and other marks stay.

    >>> commas_apart("A red cube, a ball.")
    ['A', 'red', 'cube', ',', 'a', 'ball.']
    """
    return text.replace(",", " , ").split()


def marks_apart(text: str) -> list[str]:
    """Words in lower case, and punctuation marks, signs and emoji each as a word of its own.

    Apostrophes and hyphens between letters or digits stay inside the word; accents are composed
    (NFC), so that a word has one spelling.

    Raises:
      ModuleNotFoundError: regex isn't installed.

    >>> marks_apart("The dog's (well-known) BALL...")
    ['the', "dog's", '(', 'well-known', ')', 'ball', '.', '.', '.']
    """
    return pattern(_WORD).findall(unicodedata.normalize("NFC", text).lower())


@dataclass(frozen=True)
class Words:
    """A tokenizer of whole words: 0 pads, 1 begins, 2 ends, and words count from 3.

    Attributes:
      vocabulary: the words, each once; "," is a word where the texts have commas.
      length: how many numbers a text becomes, begin and end among them.
      unknown: whether words that aren't in the vocabulary share one number, the last; else they
        are an error.
      split: a text's words; `commas_apart`, `marks_apart`, or another function.

    >>> Words(("a", "cube", "red"), 6).encode("a red cube")
    array([1, 3, 5, 4, 2, 0], dtype=int32)
    """

    vocabulary: tuple[str, ...]
    length: int
    unknown: bool = False
    split: Callable[[str], list[str]] = field(default=commas_apart, repr=False)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        length: int | None = None,
        most: int | None = None,
        least: int = 1,
        unknown: bool = False,
        split: Callable[[str], list[str]] = marks_apart,
    ) -> Words:
        """The words of a data set's texts, in the order of their letters.

        Args:
          texts: the captions to count words in.
          length: how many numbers a text becomes; when not given, what the longest of them needs.
          most: how many words to keep at most: the commonest, of equals the first by the alphabet.
          least: how often a word has to occur to be kept.
          unknown: whether words that aren't kept share a number; else they are an error.
          split: a text's words.

        Raises:
          ValueError: one text instead of several, no words, `most` or `least` below 1, or words
            that are left out where `unknown` is False: these texts couldn't be encoded.

        >>> words = Words.from_texts(["A red cube.", "a blue CUBE"])
        >>> words.vocabulary, words.length
        (('.', 'a', 'blue', 'cube', 'red'), 6)
        """
        if isinstance(texts, str):
            raise ValueError(f"from_texts takes several texts, not one: {texts[:40]!r}")
        for name, value in (("most", most), ("least", least)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        counts: collections.Counter[str] = collections.Counter()
        longest = 0
        for text in texts:
            words = split(text)
            counts.update(words)
            longest = max(longest, len(words))
        common = sorted(counts, key=lambda word: (-counts[word], word))[:most]
        kept = sorted(word for word in common if counts[word] >= least)
        if not kept:
            raise ValueError(f"the texts have no word that occurs at least {least} times")
        if len(kept) < len(counts) and not unknown:
            raise ValueError(
                f"most={most} and least={least} leave out {len(counts) - len(kept)} of "
                f"{len(counts)} words: unknown=True gives them a number"
            )
        return cls(tuple(kept), longest + 2 if length is None else length, unknown, split)

    def __post_init__(self) -> None:
        twice = [word for word, n in collections.Counter(self.vocabulary).items() if n > 1]
        if twice:
            raise ValueError(f"a vocabulary has each word once, but {min(twice)!r} comes again")
        if self.length < 3:
            raise ValueError(f"length must be at least 3 (begin, a word, end), not {self.length}")

    @property
    def size(self) -> int:
        """How many numbers there are: the words, the three marks, and one for unknown words."""
        return len(self.vocabulary) + 3 + self.unknown

    def encode(self, text: str) -> Int[np.ndarray, " length"]:
        """Begin, the words of the text, end, and zeros.

        Raises:
          ValueError: a word that isn't in the vocabulary (unless `unknown`), or more than
            `length - 2` words.
        """
        words = self.split(text)
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

    def decode(self, ids: npt.ArrayLike) -> str:
        """The words of numbers [n] up to the first end, with spaces, and "," after its word.

        Unknown words are U+FFFD.

        Raises:
          ValueError: not integers of one text, or one that is no word's number.

        >>> Words((",", "a", "cube"), 8).decode([1, 4, 5, 3, 4, 5, 2, 0])
        'a cube, a cube'
        """
        names = ("", "", "", *self.vocabulary, UNKNOWN)
        words = [names[number] for number in numbers_before(ids, self.size, 2)]
        return " ".join(word for word in words if word).replace(" ,", ",")

    def _number(self, word: str) -> int:
        numbers = _numbers(self.vocabulary)
        if word in numbers:
            return numbers[word]
        if self.unknown:
            return self.size - 1
        close = difflib.get_close_matches(word.lower(), self.vocabulary, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {len(numbers)} other words"
        raise ValueError(f"the vocabulary has no word {word!r}; {hint}")


def numbers_before(ids: npt.ArrayLike, size: int, end: int) -> list[int]:
    """The integers of one text up to its first end, checked to be in [0, size).

    Raises:
      ValueError: not integers [n], or one that is out of range.

    >>> numbers_before([1, 5, 2, 0], 6, end=2)
    [1, 5]
    """
    numbers = np.asarray(ids)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ValueError(
            f"decode takes the integers [n] of one text, not {numbers.dtype} {list(numbers.shape)}"
        )
    for wrong in numbers[(numbers < 0) | (numbers >= size)][:1]:
        raise ValueError(f"token {wrong} is out of range: there are 0..{size - 1}")
    return list(itertools.takewhile(lambda number: number != end, numbers.tolist()))


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
    return mapped(source, lambda record: {as_: tokenizer.encode(record[feature])})


@functools.cache
def _numbers(vocabulary: tuple[str, ...]) -> Mapping[str, int]:
    return {word: number for number, word in enumerate(vocabulary, 3)}
