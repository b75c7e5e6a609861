"""How well pictures match their texts: CLIPScore (Hessel et al. 2021, arXiv:2104.08718)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from diffusion_jax.data.pairs import EncodeImages, EncodeTexts, pair_similarities
from diffusion_jax.evaluation.inputs import to_levels

Cosines = Float[np.ndarray | jax.Array, " n"]


class ClipScore(NamedTuple):
    """The scores of pairs, and their means.

    Attributes:
      score: the mean of w max(cos, 0), the paper's number, in [0, w].
      cosine: the mean cosine, in [-1, 1]; times 100 it is what some papers call CLIP score.
      cosines: [n], each pair's.
    """

    score: float
    cosine: float
    cosines: Float[np.ndarray, " n"]


def clip_score(cosines: Cosines, w: float = 2.5) -> Float[np.ndarray, " n"]:
    """w max(cos, 0), [n].

    Args:
      cosines: of pictures with their texts, [n] in [-1, 1].
      w: the paper's scale, which brings its network's scores near [0, 1].

    Source: Hessel et al. 2021 (arXiv:2104.08718), section 3.
    """
    return w * np.maximum(np.asarray(cosines).astype(np.float64), 0)


def evaluate_clip_score(
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    pairs: Iterable[tuple[np.ndarray | jax.Array, str]],
    *,
    w: float = 2.5,
    prefix: str = "",
    batch: int = 64,
) -> ClipScore:
    """CLIPScore of pictures and texts, rounded to 8-bit levels as the real ones are.

    A score compares only with those of the same encoders and prefix.

    Args:
      encode_images: pictures [b h w c] in [-1, 1] -> unit embeddings [b d].
      encode_texts: texts -> unit embeddings [b d].
      pairs: (picture, text): [h, w, c], uint8 or floats in [-1, 1], all of one size. Read once.
      w: see `clip_score`.
      prefix: put before each text; the paper's is "A photo depicts ".
      batch: pictures in a call.

    Raises:
      ValueError: a picture that isn't [h, w, c], or what `to_levels` and `pair_similarities`
        refuse.
    """
    levels = ((_levels(picture), prefix + text) for picture, text in pairs)
    cosines = pair_similarities(encode_images, encode_texts, levels, batch=batch)
    return ClipScore(float(clip_score(cosines, w).mean()), float(cosines.mean()), cosines)


def _levels(picture: np.ndarray | jax.Array) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(picture)
    if pixels.ndim != 3:
        raise ValueError(f"a picture of a pair must be [h, w, c], not {list(pixels.shape)}")
    return to_levels(pixels[None])[0]
