"""Augmentations: functions of a batch of pictures and one random key for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


@runtime_checkable
class Augment(Protocol):
    """(uint8 [b, h, w, c], keys uint64 [b]) -> uint8 [b, h, w, c]; picture i sees key i."""

    def __call__(self, images: np.ndarray, keys: np.ndarray) -> np.ndarray: ...


def flip(probability: float = 0.5) -> Augment:
    """Mirrors each picture left to right with this probability.

    Raises:
      ValueError: the probability is outside [0, 1].

    >>> flip()
    Flip(probability=0.5)
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"flip: the probability must be in [0, 1], not {probability}")
    return Flip(probability)


@dataclass(frozen=True)
class Flip:
    """See `flip`."""

    probability: float

    def __call__(self, images: np.ndarray, keys: np.ndarray) -> np.ndarray:
        uniform = (keys >> np.uint64(11)) * 2.0**-53
        return np.where(
            (uniform < self.probability)[:, None, None, None], images[:, :, ::-1], images
        )


def crop(least: float = 0.8) -> Augment:
    """A square part of each picture, its side between `least` and 1 of the picture's, resized.

    Side and place are uniform; pixels are interpolated linearly.

    Raises:
      ValueError: `least` is outside (0, 1].

    Source: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.3: its only augmentation.

    >>> crop(0.9)
    Crop(least=0.9)
    """
    if not 0 < least <= 1:
        raise ValueError(f"crop: the least side must be in (0, 1], not {least}")
    return Crop(least)


def patch(side: int) -> Augment:
    """A square of so many pixels from each picture, anywhere, as it is; for upsamplers.

    Raises:
      ValueError: below 1; when pictures come, larger than they are.
    """
    if side < 1:
        raise ValueError(f"patch: the side must be at least 1, not {side}")
    return Patch(side)


@dataclass(frozen=True)
class Patch:
    """See `patch`."""

    side: int

    def __call__(self, images: np.ndarray, keys: np.ndarray) -> np.ndarray:
        b, h, w, _ = images.shape
        if self.side > min(h, w):
            raise ValueError(f"patch: no {self.side}x{self.side} in pictures of {h}x{w}")
        pixels = np.arange(self.side)
        top, left = (
            np.floor(uniform(keys, j) * (n - self.side + 1)).astype(int)[:, None] + pixels
            for j, n in enumerate((h, w))
        )
        return images[np.arange(b)[:, None, None], top[:, :, None], left[:, None, :]]


@dataclass(frozen=True)
class Crop:
    """See `crop`."""

    least: float

    def __call__(self, images: np.ndarray, keys: np.ndarray) -> np.ndarray:
        b, h, w, _ = images.shape
        side, top, left = (uniform(keys, j) for j in range(3))
        side = self.least + (1 - self.least) * side
        rows, down = _positions(h, side, top * (1 - side))
        columns, right = _positions(w, side, left * (1 - side))
        x = images.astype(np.float32)
        picture = np.arange(b)[:, None]
        x = x[picture, rows] + down[:, :, None, None] * (x[picture, rows + 1] - x[picture, rows])
        x = x.swapaxes(1, 2)
        x = x[picture, columns] + right[:, :, None, None] * (
            x[picture, columns + 1] - x[picture, columns]
        )
        return np.rint(x.swapaxes(1, 2)).astype(np.uint8)


def uniform(keys: np.ndarray, draw: int) -> np.ndarray:
    """A number in [0, 1) for each key, others for each draw."""
    mixed = _mixed(keys + np.uint64((draw + 1) * int(_STEP) % 2**64))
    return (mixed >> np.uint64(11)) * 2.0**-53


def _positions(size: int, side: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each new pixel lies in the old row: the pixel before, [b size], and how far behind."""
    centres = (np.arange(size) + 0.5) / size
    place = (start[:, None] + side[:, None] * centres[None]) * size - 0.5
    place = np.clip(place, 0, size - 1)
    before = np.minimum(place.astype(int), size - 2)
    return before, (place - before).astype(np.float32)


def example_keys(seed: int, numbers: np.ndarray) -> np.ndarray:
    """64 random bits for each global example number, uint64 [b]: a pure function of (seed, number).

    SplitMix64 (Steele, Lea and Flood, 2014), started at the seed's hash: it has random access, so
    no process needs to know how the others split the batch.
    """
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    return _mixed(start + (numbers.astype(np.uint64) + np.uint64(1)) * _STEP)


def _mixed(z: np.ndarray) -> np.ndarray:
    """SplitMix64's hash of 64 bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
