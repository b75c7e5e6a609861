"""Codecs of large pictures and batches in little memory: a tile, or a picture, at a time."""

from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Half = Callable[[Array], Array]  # [b h w c] -> [b factor*h factor*w c2]


def sliced(run: Callable[[Array], Array], x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """run(x), an example at a time."""
    return jax.lax.map(lambda one: run(one[None])[0], x)


def tiled(
    run: Half,
    x: Float[Array, "b h w c"],
    *,
    tile: int,
    overlap: int,
    factor: int | Fraction,
) -> Float[Array, "b h2 w2 c2"]:
    """run(x), a square of x at a time; where squares overlap, answers go over into one another.

    What is farther apart than a tile isn't seen together: statistics of norms and attention are
    each tile's own, so colours may differ a little from those of the whole.

    Args:
        run: decoder or encoder.
        x: its argument. A side that isn't longer than the tile is one tile.
        tile: side of the squares.
        overlap: of neighbouring squares, less than the tile.
        factor: how much larger the answer is: 8 of Stable Diffusion's decoder, Fraction(1, 8) of
            its encoder, where tile, overlap and sides must be multiples of 8.

    Raises:
        ValueError: no room between the overlaps, or sides that aren't whole after the factor.
    """
    if not 0 <= overlap < tile:
        raise ValueError(
            f"the overlap is {overlap}; it must be from 0 to less than the tile, {tile}."
        )
    _, height, width, _ = x.shape
    for name, side in (("height", height), ("width", width), ("tile", tile), ("overlap", overlap)):
        if (side * Fraction(factor)).denominator != 1:
            raise ValueError(f"{name} is {side}, which isn't whole after the factor {factor}.")

    def scale(n: int) -> int:
        return int(n * Fraction(factor))

    tall, wide = min(tile, height), min(tile, width)
    corners = [
        (top, left)
        for top in _starts(height, tall, overlap)
        for left in _starts(width, wide, overlap)
    ]
    tiles = jnp.stack([x[:, top : top + tall, left : left + wide] for top, left in corners])
    answers = jax.lax.map(run, tiles)
    rows = _ramp(scale(tall), scale(overlap))
    columns = _ramp(scale(wide), scale(overlap))
    weight = jnp.asarray(rows[:, None] * columns[None])[None, :, :, None]
    shape = (x.shape[0], scale(height), scale(width), answers.shape[-1])
    total, weights = jnp.zeros(shape, jnp.float32), np.zeros(shape[1:3], np.float32)
    for (top, left), answer in zip(corners, answers, strict=True):
        place = (
            slice(scale(top), scale(top) + answer.shape[1]),
            slice(scale(left), scale(left) + answer.shape[2]),
        )
        total = total.at[(slice(None), *place)].add(weight * answer)
        weights[place] += rows[:, None] * columns[None]
    return total / weights[None, :, :, None]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, the last so that it ends at the side's end."""
    if side == tile:  # which may be no longer than the overlap
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _ramp(side: int, overlap: int) -> np.ndarray:
    """Weights of a tile's pixels along a side: rising over the overlap, 1 inside, falling."""
    place = np.arange(side) + 0.5
    edge = np.minimum(place, side - place)
    return np.minimum(1.0, edge / max(overlap, 0.5)).astype(np.float32)
