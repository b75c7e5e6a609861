"""Pixels and bits: 8-bit levels in [-1, 1], noise between them, and what a nat is worth.

Level k of 0..255 is the pixel k/127.5 - 1: levels lie 2/255 apart and own the bin of that width
around them. With u uniform in [-1/2, 1/2), for any density p of d pixels,

    log P(x) = log E_u p(x + u 2/255) (2/255)^d >= E_u log p(x + u 2/255) - d log 127.5     (1)

so a density in nats becomes a bound on the levels' bits per dimension, by Jensen's inequality:

    bits = -log p / (d log 2) + log2(127.5).                                              (2)

The discretised Gaussian gives a level its bin's mass, and the two outermost what lies beyond:

    P(x) = F((x + 1/255 - mean) / std) - F((x - 1/255 - mean) / std),
    F the standard normal distribution, F(.) = 1 at x = 1 and 0 at x = -1.                 (3)

Sources: Ho et al. 2020 (arXiv:2006.11239), (13); Theis et al. 2016 (arXiv:1511.01844), 3.1.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from diffusion_jax.random import example_keys
from diffusion_jax.types import Index, Key

HALF_BIN = 1 / 255  # half the distance between two levels
DEQUANTISATION_STD = 2 * HALF_BIN / math.sqrt(12)  # of noise that is uniform in a bin
DEQUANTISATION_BITS = math.log2(127.5)  # what (2) adds

Decoder = Callable[[Array, Array, Array], Array]  # (x, mean, std) -> log-likelihood [b]


def bits_per_dimension(nats: Any, dimensions: int) -> Any:
    """nats / (dimensions log 2), for the -log P of whole examples: a number or any array.

    >>> bits_per_dimension(math.log(2) * 784, 784)
    1.0
    """
    return nats / (dimensions * math.log(2))


def dequantise(key: Key, index: Index, images: Array) -> Array:
    """images + u 2/255 with u uniform in [-1/2, 1/2), equation (1): data with a density.

    Args:
        key: typed key; example i draws from fold_in(key, index[i]) alone.
        index: the examples' numbers [b].
        images: [b ...] 8-bit levels: uint8, or floats in [-1, 1] as batches hold them.

    Returns:
        Floats in [-1 - 1/255, 1 + 1/255), the shape of images.
    """
    if images.dtype == jnp.uint8:
        images = images / jnp.float32(127.5) - 1.0
    size = math.prod(images.shape[1:])
    keys = example_keys(key, index)
    draw = jax.vmap(lambda key: jax.random.uniform(key, (size,), images.dtype, -0.5, 0.5))
    return images + 2 * HALF_BIN * draw(keys).reshape(images.shape)


def log_bin_mass(
    x: Float[Array, "b ..."], mean: Float[Array, "b ..."], std: Float[Array, "b ..."]
) -> Float[Array, "b ..."]:
    """log P of 8-bit levels x in [-1, 1], equation (3), each on its own.

    Finite however far x is from the mean: by symmetry the bin is looked at from the side of
    its mean, where the difference of two tails keeps its digits.
    """
    distance = jnp.abs(x - mean)
    outer, inner = (log_ndtr((-distance + side * HALF_BIN) / std) for side in (-1, 1))
    inside = inner + jnp.log(-jnp.expm1(jnp.minimum(outer - inner, -1e-30)))
    beyond = log_ndtr((jnp.where(x < 0, x - mean, mean - x) + HALF_BIN) / std)
    return jnp.where(jnp.abs(x) > 1 - HALF_BIN, beyond, inside)


def discretised_gaussian(
    x: Float[Array, "b ..."], mean: Float[Array, "b ..."], std: Float[Array, "b ..."]
) -> Float[Array, " b"]:
    """`log_bin_mass` summed over each example."""
    return log_bin_mass(x, mean, std).reshape(x.shape[0], -1).sum(1)


def gaussian_density(
    x: Float[Array, "b ..."], mean: Float[Array, "b ..."], std: Float[Array, "b ..."]
) -> Float[Array, " b"]:
    """log N(x; mean, std^2), summed over each example: the decoder of data with a density."""
    value = -0.5 * (((x - mean) / std) ** 2 + jnp.log(2 * jnp.pi * std**2))
    return value.reshape(x.shape[0], -1).sum(1)
