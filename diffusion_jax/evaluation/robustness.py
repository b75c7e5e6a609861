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
      ValueError: no strengths for a shift, strengths for none of the shifts, a shift that changes
        the shape or isn't finite, no pictures, or some that `to_levels` refuses.
    """
    pixels = to_levels(images).astype(np.float32) / np.float32(127.5) - 1
    if not len(pixels):
        raise ValueError("there are no pictures to shift")
    named = strengths if isinstance(strengths, Mapping) else dict.fromkeys(shifts, strengths)
    for name in shifts:
        if not len(named.get(name, ())):
            raise ValueError(f"there are no strengths for the shift {name!r}")
    unknown = [name for name in named if name not in shifts]
    if unknown:
        known = ", ".join(shifts)
        raise ValueError(f"there are strengths for {unknown[0]!r}, and the shifts are {known}")
    curves: dict[str, dict[float, float]] = {}
    for name, shift in shifts.items():
        curves[name] = {}
        for strength in named[name]:
            moved = np.asarray(shift(pixels, strength), np.float32)
            if moved.shape != pixels.shape or not np.isfinite(moved).all():
                raise ValueError(
                    f"the shift {name!r} at {strength:g} made {list(moved.shape)} of "
                    f"{list(pixels.shape)}, or values that aren't finite"
                )
            curves[name][strength] = float(accuracy(np.clip(moved, -1, 1)))
    return curves


def noise(seed: int = 0) -> Shift:
    """White noise whose standard deviation is the strength (pixels span 2), the same at each.

    Raises:
      ValueError: when called, a strength below 0 or that isn't finite.
    """

    def shift(images: Pixels, strength: float) -> Pixels:
        _check_strength("noise", strength)
        white = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
        return images + np.float32(strength) * white

    return shift


def blur(images: Pixels, strength: float) -> Pixels:
    """A Gaussian blur whose standard deviation in pixels is the strength; edges are mirrored.

    Raises:
      ValueError: a strength below 0 or that isn't finite.
    """
    from scipy import ndimage

    _check_strength("blur", strength)
    return ndimage.gaussian_filter(images, (0, strength, strength, 0))


def _check_strength(name: str, strength: float) -> None:
    if not 0 <= strength < np.inf:
        raise ValueError(f"the strength of {name} must be at least 0 and finite, not {strength}")
