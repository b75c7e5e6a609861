"""What the metrics take: pictures as 8-bit levels, samples exactly as real ones, and labels."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float, Int, Integer, UInt8

from diffusion_jax.data.images import to_uint8

# Real pictures are uint8, samples floats in [-1, 1]; both become `Levels` before they are measured.
Levels = UInt8[np.ndarray, "n h w c"]
Images = UInt8[np.ndarray | jax.Array, "n h w c"] | Float[np.ndarray | jax.Array, "n h w c"]
Labels = Integer[np.ndarray | jax.Array, " labels"]


def to_levels(images: Images) -> Levels:
    """Round pictures to 8-bit levels, as storing them in a file would.

        level = round(clip((x + 1) * 127.5, 0, 255))

    Args:
      images: `[n, h, w, c]`; uint8 passes unchanged, floats are in [-1, 1], overshoots are clipped.

    Raises:
      ValueError: another shape, values that are not finite, or floats that are plainly on the scale
        0..255.
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4:
        raise ValueError(f"pictures must be [n, h, w, c], not {list(pixels.shape)}")
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)  # bfloat16 too
    finite = np.isfinite(pixels).all(axis=(1, 2, 3))
    if not finite.all():
        raise ValueError(
            f"{np.sum(~finite)} of {len(pixels)} images hold values that are not finite, "
            f"the first at index {np.argmin(finite)}"
        )
    if pixels.size and pixels.min() >= 0 and pixels.max() > 2:
        raise ValueError(
            f"float images must lie in [-1, 1], but these span [{pixels.min():g}, "
            f"{pixels.max():g}]; pass levels 0..255 as uint8"
        )
    return to_uint8(pixels)


def checked_labels(labels: Labels, count: int, classes: int) -> Int[np.ndarray, " n"]:
    """Labels as int32 `[count]`; refuses others than `count` integers in 0..classes - 1."""
    checked = _integers(labels, count)
    outside = (checked < 0) | (checked >= classes)
    if outside.any():
        raise ValueError(
            f"labels must lie in 0..{classes - 1}, got {checked[outside][0]} "
            f"at index {np.argmax(outside)}"
        )
    return checked.astype(np.int32)


def agreement(predicted: Int[np.ndarray, " n"], labels: Labels) -> float:
    """Share of predictions, in [0, 1], that equal their label."""
    expected = _integers(labels, len(predicted))
    if not len(predicted):
        raise ValueError("0 images have no accuracy; give at least one")
    return float(np.mean(predicted == expected))


def _integers(labels: Labels, count: int) -> Integer[np.ndarray, " n"]:
    given = np.asarray(labels)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"labels must be integers [n], not {given.dtype} {list(given.shape)}")
    if len(given) != count:
        raise ValueError(f"{count} images, but {len(given)} labels")
    return given
