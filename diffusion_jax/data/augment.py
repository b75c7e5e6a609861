"""Augmentations: functions of a batch of pictures and one random key for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


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


def example_keys(seed: int, numbers: np.ndarray) -> np.ndarray:
    """64 random bits for each global example number, uint64 [b]: a pure function of (seed, number).

    SplitMix64 (Steele, Lea and Flood, 2014), started at the seed's hash: it has random access, so
    no process needs to know how the others split the batch.
    """
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    z = start + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
