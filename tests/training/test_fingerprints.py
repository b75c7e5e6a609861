"""A fingerprint changes with every bit and every place, and not with how an array is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.training import fingerprints
from diffusion_jax.training.fingerprints import fingerprint

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint8", "bool", "int64", "float64"]


def array(dtype: str, shape=(6, 5, 4)) -> np.ndarray:
    bits = np.random.default_rng(0).integers(0, 2, shape)
    return bits.astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_counts(dtype):
    x = array(dtype)
    seen = {fingerprint(x)}
    for byte in range(0, x.nbytes, 7):
        other = x.copy()
        other.reshape(-1).view(np.uint8)[byte] ^= 1
        seen.add(fingerprint(other))
    assert len(seen) == 1 + len(range(0, x.nbytes, 7))


def test_places_count():
    x = np.arange(120, dtype=np.float32).reshape(6, 5, 4)
    moved = [np.roll(x, 1, axis) for axis in range(3)] + [x[::-1], x.swapaxes(0, 1)]
    assert len({fingerprint(y) for y in [x, *moved]}) == 6


def test_zeros_of_other_lengths_differ():
    assert len({fingerprint(np.zeros(n, np.float32)) for n in range(5)}) == 5


def test_shape_0_and_strides():
    x = np.arange(24.0).reshape(4, 6)
    assert fingerprint(x.T) == fingerprint(np.ascontiguousarray(x.T))
    assert fingerprint(np.float32(3)) == fingerprint(jnp.float32(3)) != fingerprint(np.float32(4))


@pytest.mark.parametrize("shape", [(7,), (6, 5, 4), (40, 3), (3, 700)])
def test_parts_add_up(monkeypatch, shape):
    """Cut along each axis, and into slabs of other sizes, as shards would be."""
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    whole = fingerprint(x)
    monkeypatch.setattr(fingerprints, "_SLAB", 8)
    assert fingerprint(x) == whole
    for axis, size in enumerate(shape):
        cut = size // 3
        total = 0
        for start, stop in ((0, cut), (cut, size)):
            part = np.take(x, range(start, stop), axis)
            starts = [start if k == axis else 0 for k in range(x.ndim)]
            for slab, index in fingerprints._slabs(part, starts, shape):
                total += int(fingerprints._sum(slab, index))
        assert total % 2**64 == whole


def test_jax_arrays_are_their_numbers():
    x = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
    assert fingerprint(jax.device_put(x)) == fingerprint(x)
