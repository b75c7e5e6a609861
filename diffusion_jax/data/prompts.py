"""Prompts of any length, with words that count more or less: "a (red:1.3) hat"."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffusion_jax.data.bpe import BytePairs

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PIECES = re.compile(
    rf"(?P<escaped>\\[()])|(?P<opened>\()|:\s*(?P<weight>{_NUMBER})\s*\)|(?P<closed>\))|[^\\():]+|."
)


class Part(NamedTuple):
    """A piece of a prompt, and how much it counts."""

    text: str
    weight: float


class WeightedTokens(NamedTuple):
    """Texts as an encoder reads them, in chunks of its length.

    Attributes:
      ids: int32 [n chunks length], each chunk with its start and end.
      weights: float32 [n chunks length], 1 for what nobody weighted.
    """

    ids: Int[np.ndarray, "n chunks length"]
    weights: Float[np.ndarray, "n chunks length"]


def prompt_parts(prompt: str) -> list[Part]:
    r"""A prompt's pieces; what stands as (words:weight) has that weight, everything else 1.

    Weights multiply where one stands in another. Parentheses without a weight are text, and so are
    ones after a backslash.

    Raises:
      ValueError: a weight that is no finite number.

    >>> prompt_parts("a (red:1.3) hat")
    [Part(text='a ', weight=1.0), Part(text='red', weight=1.3), Part(text=' hat', weight=1.0)]
    """
    parts: list[Part] = []
    opened: list[int] = []  # places in `parts` of parentheses that aren't closed yet
    for match in _PIECES.finditer(prompt):
        text = match[0]
        if match["escaped"]:
            text = text[1]
        elif match["opened"]:
            opened.append(len(parts))
        elif match["closed"] and opened:
            opened.pop()
        elif match["weight"] and opened:
            weight, start = float(match["weight"]), opened.pop()
            if not math.isfinite(weight):
                raise ValueError(f"{match['weight']!r} in a prompt is no finite weight.")
            inside = parts[start + 1 :]
            parts[start:] = [one._replace(weight=one.weight * weight) for one in inside]
            continue
        parts.append(Part(text, 1.0))
    alike = itertools.groupby(parts, key=lambda part: part.weight)  # split, they'd be other tokens
    return [Part("".join(part.text for part in some), weight) for weight, some in alike]


def weighted_tokens(
    tokenizer: BytePairs, prompts: Sequence[str], *, chunks: int | None = None
) -> WeightedTokens:
    """Prompts in as many chunks as the longest one needs, or in so many.

    Args:
      tokenizer: of the encoder, whose length a chunk has.
      prompts: texts for `prompt_parts`.
      chunks: that there is room for; more tokens are an error.

    Raises:
      ValueError: no prompts, a weight that is no number, or a prompt that is too long for `chunks`.
    """
    if not prompts:
        raise ValueError("weighted_tokens needs one prompt at least.")
    room = tokenizer.length - 2
    read = [_numbers(tokenizer, prompt) for prompt in prompts]
    needed = max(1, *(-(-len(found) // room) for found in read))
    if chunks is not None and needed > chunks:
        most = max(len(found) for found in read)
        raise ValueError(
            f"a prompt has {most} tokens; there is room for {chunks * room} in {chunks} chunks."
        )
    shape = (len(prompts), chunks or needed, tokenizer.length)
    ids, weights = np.full(shape, tokenizer.pad, np.int32), np.ones(shape, np.float32)
    ids[:, :, 0] = tokenizer.start
    for row, found in enumerate(read):
        for chunk in range(shape[1]):
            some = found[chunk * room : (chunk + 1) * room]
            for place, (number, weight) in enumerate(some, 1):
                ids[row, chunk, place], weights[row, chunk, place] = number, weight
            ids[row, chunk, len(some) + 1] = tokenizer.end
    return WeightedTokens(ids, weights)


def _numbers(tokenizer: BytePairs, prompt: str) -> list[tuple[int, float]]:
    """The tokens of a prompt and their weights, without start and end."""
    whole, found = _unlimited(tokenizer), []
    for text, weight in prompt_parts(prompt):
        numbers = whole.encode(text)[1:]
        count = int(np.argmax(numbers == whole.end))
        found += [(int(number), weight) for number in numbers[:count]]
    return found


@functools.lru_cache(maxsize=4)
def _unlimited(tokenizer: BytePairs) -> BytePairs:
    return replace(tokenizer, length=1 << 14, truncate=False)
