"""Draws with one key for each example, so that they don't depend on the batch around it.

A single draw over a sharded array has been seen to depend on the number of shards; these can't.
They are drawn flat: XLA:CPU takes several times longer to compile a draw of rank 4.
"""

import math
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from diffusion_jax.types import Index, Key, Scalar


def example_keys(key: Key, index: Index) -> Key:
    """fold_in(key, i) for examples number i in index [b]: keys [b]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def uniform(keys: Key) -> Float[Array, " b"]:
    """U[0, 1) from each key."""
    return jax.vmap(jax.random.uniform)(keys)


def normal(keys: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """White noise of this shape from each key: [b *shape]."""
    size = math.prod(shape)
    flat = jax.vmap(lambda key: jax.random.normal(key, (size,), dtype))(keys)
    return flat.reshape(-1, *shape)


def white_noise(key: Key, index: Index, x: Array) -> Array:
    """White noise like x [b ...], example i's from fold_in(key, index[i])."""
    return normal(example_keys(key, index), x.shape[1:], x.dtype)


def bernoulli(keys: Key, probability: Scalar, shape: tuple[int, ...] = ()) -> Bool[Array, "b ..."]:
    """True with this probability in each entry, from each key: [b *shape]."""
    size = math.prod(shape)
    flat = jax.vmap(lambda key: jax.random.bernoulli(key, probability, (size,)))(keys)
    return flat.reshape(-1, *shape)
