"""Pictures with several texts: what one picture may be called, as tokens of one shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_jax.data.sources import Source
from diffusion_jax.data.views import mapped
from diffusion_jax.types import Tokenizer

Texts = Callable[[Mapping[str, Any]], Sequence[str]]  # a record -> what it may be called

KEYWORDS = 8  # of an emoji, at most: a few have thirty
EMOJI_STYLES = ("fluent3d", "noto", "openmoji", "twemoji")


def captioned(source: Source, tokenizer: Tokenizer, texts: Texts, count: int) -> Source:
    """The same source, whose records gain "tokens", int32 [count, length].

    Training takes one of the rows at random. A record of fewer texts has them again from the
    first; of more, the first `count`.

    Raises:
        ValueError: count is below 1, or the first record has no text, or not the features that
            `texts` reads.
    """
    if count < 1:
        raise ValueError(f"count is {count}; a picture needs at least 1 text.")
    if len(source):
        try:
            first = texts(source[0])
        except ValueError as error:
            raise ValueError(f"{source.name}: {error}") from error
        if not first:
            raise ValueError(f"{source.name}: the first record has no text")

    def tokens(record: Mapping[str, Any]) -> dict[str, Any]:
        said = texts(record)
        rows = [tokenizer.encode(said[j % len(said)]) for j in range(count)]
        return {"tokens": np.stack(rows)}

    return mapped(source, tokens)


def caption_alone(record: Mapping[str, Any]) -> Sequence[str]:
    """The record's caption.

    Raises:
        ValueError: it has none.
    """
    _require(record, "caption")
    return (record["caption"],)


def emoji_texts(record: Mapping[str, Any]) -> Sequence[str]:
    """What an emoji may be called: its name, with its style, with keywords, with its kind.

    >>> record = dict(caption="wolf", keywords="animal, face, wolf", subgroup="animal-mammal")
    >>> for text in emoji_texts(record | {"style": 1}): print(text)
    wolf
    wolf, in noto style
    wolf: animal, face
    animal mammal: wolf, in noto style
    animal mammal: animal, face

    Raises:
        ValueError: one of these features isn't in the record.
    """
    _require(record, "caption", "keywords", "subgroup", "style")
    name, style = record["caption"], EMOJI_STYLES[record["style"]]
    words = [w.strip() for w in record["keywords"].split(",")]
    others = ", ".join([w for w in words if w and w != name][:KEYWORDS]) or name
    kind = record["subgroup"].replace("-", " ")
    return (
        name,
        f"{name}, in {style} style",
        f"{name}: {others}",
        f"{kind}: {name}, in {style} style",
        f"{kind}: {others}",
    )


def _require(record: Mapping[str, Any], *features: str) -> None:
    for name in features:
        if name not in record:
            known = ", ".join(sorted(record))
            raise ValueError(f"the record has no feature {name!r}; it holds {known}")
