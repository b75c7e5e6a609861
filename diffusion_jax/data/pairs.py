"""How well pictures match their texts, by a pair of encoders, in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

EncodeImages = Callable[[jax.Array], Any]  # pictures [b h w c] in [-1, 1] -> unit rows [b d]
EncodeTexts = Callable[[Sequence[str]], Any]  # texts -> unit rows [b d]


def unit_rows(
    what: str, rows: Float[np.ndarray | jax.Array, ...], count: int | None = None
) -> Float[np.ndarray, "n d"]:
    """Embeddings as float64 [n, d]; what 16 bits took from their length is given back.

    Raises:
      ValueError: not [n, d], another number than `count`, or a length that isn't 1 within 2 %.
    """
    found = np.asarray(rows).astype(np.float64)
    if found.ndim != 2 or (count is not None and len(found) != count):
        wanted = "n" if count is None else count
        raise ValueError(f"{what} must be [{wanted}, d], not {list(found.shape)}")
    lengths = np.linalg.norm(found, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= 0.02))  # NaN is wrong too
    if wrong.size:
        raise ValueError(
            f"{what} must have length 1, but row {wrong[0]} has {lengths[wrong[0]]:g}; "
            "divide them by their norm"
        )
    return found / lengths[:, None]


def pair_similarities(
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    pairs: Iterable[tuple[UInt8[np.ndarray, "h w c"], str]],
    *,
    batch: int = 64,
) -> Float[np.ndarray, " n"]:
    """The cosine of each picture with its own text, in [-1, 1].

    Args:
      encode_images: pictures [b h w c] in [-1, 1], float32 -> unit embeddings [b d].
      encode_texts: b texts -> unit embeddings [b d].
      pairs: (picture, text): uint8 [h, w, c], all of one size. Read once, a batch at a time.
      batch: pictures in a call; the last call has what is left.

    Raises:
      ValueError: no pairs, a batch below 1, a picture that isn't uint8 [h, w, c], or embeddings
        that aren't unit rows of one d.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    remaining, found = iter(pairs), []
    while taken := list(itertools.islice(remaining, batch)):
        pictures, texts = np.stack([picture for picture, _ in taken]), [text for _, text in taken]
        if pictures.dtype != np.uint8 or pictures.ndim != 4:
            raise ValueError(
                f"pictures of pairs must be uint8 [h, w, c], not {pictures.dtype} "
                f"{list(pictures.shape[1:])}"
            )
        pixels = jnp.asarray(pictures, jnp.float32) / 127.5 - 1
        images = unit_rows("embeddings of pictures", encode_images(pixels), len(taken))
        words = unit_rows("embeddings of texts", encode_texts(texts), len(taken))
        if images.shape != words.shape:  # d = 1 would be broadcast
            raise ValueError(
                f"embeddings of pictures {list(images.shape)} and of texts {list(words.shape)} "
                "must have the same d"
            )
        found.append((images * words).sum(1))
    if not found:
        raise ValueError("there are no pairs of pictures and texts")
    return np.concatenate(found)
