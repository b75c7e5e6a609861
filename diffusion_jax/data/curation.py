"""Which pairs of a captioned set to train on: kept indices, and the source they make.

    kept = intersection(clip_filter(similarities(source, images, texts), 0.5),
                        t_mars(source, images, texts, StrokeDetector()))
    source = subset(source, kept)

A filter gives indices, increasing, so that filters of one set can be combined.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import jax
import numpy as np
from jaxtyping import Float, Int, Real

from diffusion_jax.data.pairs import EncodeImages, EncodeTexts, pair_similarities
from diffusion_jax.data.sources import Source
from diffusion_jax.data.text_regions import TextDetector, mask_text

Scores = Real[np.ndarray | jax.Array, " n"]
Kept = Int[np.ndarray, " _"]


def similarities(
    source: Source,
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    *,
    detector: TextDetector | None = None,
    batch: int = 64,
) -> Float[np.ndarray, " n"]:
    """The cosine of each record's picture with its caption, [len(source)].

    Args:
      source: records with `image` and a `caption`.
      encode_images, encode_texts: see `pair_similarities`.
      detector: finds the text that is covered in each picture before it is encoded; None covers
        nothing.
      batch: pictures in a call.

    Raises:
      ValueError: records without a caption, or what `pair_similarities` refuses.
    """

    def pairs() -> Iterator[tuple[np.ndarray, str]]:
        for i in range(len(source)):
            record = source[i]
            if "caption" not in record:
                raise ValueError(
                    f"{source.name} has no captions; its records hold {', '.join(sorted(record))}"
                )
            picture = record["image"]
            if detector is not None:
                picture = mask_text(picture, detector(picture))
            yield picture, record["caption"]

    return pair_similarities(encode_images, encode_texts, pairs(), batch=batch)


def clip_filter(scores: Scores, fraction: float) -> Kept:
    """Indices of the best fraction: round(fraction * n) of n; of equals, the first.

    Args:
      scores: [n], as of `similarities`.
      fraction: in (0, 1].

    Raises:
      ValueError: a fraction out of range or that keeps none, or scores that aren't finite [n].

    Source: Schuhmann et al. 2021 (LAION-400M), Gadre et al. 2023 (DataComp, arXiv:2304.14108),
    section 3.4.

    >>> clip_filter(np.array([0.1, 0.9, 0.5, 0.7]), 0.5)
    array([1, 3])
    """
    known = _finite(scores)
    count = _share(fraction, len(known))
    return np.sort(np.argsort(-known, kind="stable")[:count])


def above(scores: Scores, threshold: float) -> Kept:
    """Indices of the scores that are at least the threshold (LAION-400M's: 0.3).

    Raises:
      ValueError: scores that aren't finite [n], or a threshold that is NaN.

    >>> above(np.array([0.1, 0.9, 0.5]), 0.5)
    array([1, 2])
    """
    if np.isnan(threshold):
        raise ValueError("the threshold must be a number, not NaN, which no score reaches")
    return np.flatnonzero(_finite(scores) >= threshold)


def t_mars(
    source: Source,
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    detector: TextDetector,
    fraction: float = 0.5,
    *,
    batch: int = 64,
) -> Kept:
    """Indices of the fraction that matches best once the text on the pictures is covered.

    Args:
      source: records with `image` and a `caption`.
      encode_images, encode_texts: see `pair_similarities`.
      detector: finds the text.
      fraction: in (0, 1]; the paper's is 0.5.
      batch: pictures in a call.

    Raises:
      ValueError: what `similarities` and `clip_filter` refuse.

    Source: Maini et al. 2023 (arXiv:2307.03132), section 4.
    """
    _share(fraction, len(source))  # before the hours that encoding takes
    scores = similarities(source, encode_images, encode_texts, detector=detector, batch=batch)
    return clip_filter(scores, fraction)


def intersection(*kept: Kept) -> Kept:
    """Indices that every filter keeps, increasing.

    Raises:
      ValueError: there is no filter, or one that isn't integers [k], such as a mask.

    >>> intersection(np.array([0, 2, 3]), np.array([3, 0]))
    array([0, 3])
    """
    if not kept:
        raise ValueError("intersection needs the indices of at least one filter")
    for indices in map(np.asarray, kept):
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(
                f"a filter's indices must be integers [k], not {indices.dtype} "
                f"{list(indices.shape)}; np.flatnonzero makes them of a mask"
            )
    return reduce(np.intersect1d, kept[1:], np.unique(kept[0]))


def _share(fraction: float, n: int) -> int:
    """How many of n a fraction keeps."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction to keep must be in (0, 1], not {fraction}")
    count = round(fraction * n)
    if not count:
        raise ValueError(f"a fraction of {fraction} keeps none of {n} pairs")
    return count


def _finite(scores: Scores) -> Float[np.ndarray, " n"]:
    # Integers of few bits would wrap where they are negated.
    known = np.asarray(scores).astype(np.float64)
    if known.ndim != 1:
        raise ValueError(f"scores must be [n], not {list(known.shape)}")
    if not np.isfinite(known).all():
        raise ValueError(f"score {np.argmin(np.isfinite(known))} isn't finite")
    return known
