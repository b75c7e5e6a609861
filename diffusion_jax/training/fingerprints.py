"""A number that tells arrays apart, and doesn't depend on how they're cut among devices.

    f(x) = sum_i mix(bits(x_i) XOR c (i + 1)) mod 2^64,    i the row-major index of an element (1)

Sums of parts are parts of the sum, so every process adds up what it holds, and a checkpoint of
eight devices is verified on two. `mix` is invertible: one altered element always shows. It guards
against accidents, not against forgery.

Source of mix: Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, with the
constants of Stafford's variant 13.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

_SLAB = 1 << 18  # elements at a time: they stay in the cache
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def fingerprint(x: Any) -> int:
    """Equation (1) of what this process holds of an array: the whole, where there's one process.

    Args:
        x: a numpy array, or a jax array of any dtype but keys. Replicas count once.
    """
    total = 0
    for data, starts in _parts(x):
        for slab, index in _slabs(data, starts, x.shape):
            total += int(_sum(slab, index))
    return total % 2**64


def _parts(x: Any) -> Iterator[tuple[np.ndarray, Sequence[int]]]:
    """What this process answers for: arrays, and where in the whole each begins."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        if jax.process_index() == 0:
            yield np.asarray(x), [0] * x.ndim
        return
    for shard in x.addressable_shards:
        if shard.replica_id == 0:
            yield np.asarray(shard.data), [axis.start or 0 for axis in shard.index]


def _slabs(
    data: np.ndarray, starts: Sequence[int], shape: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of an array, and the index of each of their elements in the whole."""
    if data.ndim == 0:
        yield data.reshape(1), np.zeros(1, np.uint64)
        return
    rows = max(1, _SLAB // max(1, math.prod(data.shape[1:])))
    for first in range(0, len(data), rows):
        slab = data[first : first + rows]
        index = np.zeros((1,) * data.ndim, np.uint64)
        for axis, size in enumerate(slab.shape):
            start = starts[axis] + (first if axis == 0 else 0)
            stride = math.prod(shape[axis + 1 :])
            along = np.arange(start, start + size, dtype=np.uint64) * np.uint64(stride)
            index = index + along.reshape([-1 if k == axis else 1 for k in range(data.ndim)])
        yield slab, index


def _sum(slab: np.ndarray, index: np.ndarray) -> np.uint64:
    bits = np.ascontiguousarray(slab).reshape(-1).view(f"u{slab.dtype.itemsize}")
    v = bits.astype(np.uint64)
    v ^= (index.reshape(-1) + np.uint64(1)) * _SPREAD
    v ^= v >> np.uint64(30)
    v *= _MIX1
    v ^= v >> np.uint64(27)
    v *= _MIX2
    v ^= v >> np.uint64(31)
    return v.sum(dtype=np.uint64)
