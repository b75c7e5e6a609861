"""How accuracy falls as pictures get worse: a curve for each kind of shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from diffusion_jax.evaluation.inputs import Images, to_levels

Pixels = Float[np.ndarray, "n h w c"]
Shift = Callable[[np.ndarray, float], np.ndarray]  # (pixels in [-1, 1], strength) -> the same


def robustness(
    accuracy: Callable[[Pixels], float],
    images: Images,
    shifts: Mapping[str, Shift],
    strengths: Sequence[float] | Mapping[str, Sequence[float]],
) -> dict[str, dict[float, float]]:
    """Accuracy under each shift at each strength: {shift: {strength: accuracy}}.

    Args:
      accuracy: float32 pictures [n h w c] in [-1, 1] -> a number: encoder, classifier and labels
        are bound in it.
      images: [n h w c], uint8 or floats in [-1, 1].
      shifts: by name, (pictures, strength) -> pictures; `noise()`, `blur` or any. What leaves
        [-1, 1] is clipped.
      strengths: for all shifts, or by the name of each. Strength 0 of a shift of ours is none.

    Raises:
      ValueError: no strengths for a shift, a shift that changes the shape or isn't finite, or
        pictures that `to_levels` refuses.
    """
    pixels = to_levels(images).astype(np.float32) / np.float32(127.5) - 1
    curves: dict[str, dict[float, float]] = {}
    for name, shift in shifts.items():
        wanted = strengths.get(name, ()) if isinstance(strengths, Mapping) else strengths
        if not len(wanted):
            raise ValueError(f"there are no strengths for the shift {name!r}")
        curves[name] = {}
        for strength in wanted:
            moved = np.asarray(shift(pixels, strength), np.float32)
            if moved.shape != pixels.shape or not np.isfinite(moved).all():
                raise ValueError(
                    f"the shift {name!r} at {strength:g} made {list(moved.shape)} of "
                    f"{list(pixels.shape)}, or values that aren't finite"
                )
            curves[name][strength] = float(accuracy(np.clip(moved, -1, 1)))
    return curves


def noise(seed: int = 0) -> Shift:
    """White noise whose standard deviation is the strength (pixels span 2), the same at each."""

    def shift(images: Pixels, strength: float) -> Pixels:
        white = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
        return images + np.float32(strength) * white

    return shift


def blur(images: Pixels, strength: float) -> Pixels:
    """A Gaussian blur whose standard deviation in pixels is the strength; edges are mirrored."""
    from scipy import ndimage

    return ndimage.gaussian_filter(images, (0, strength, strength, 0))
