"""Where the objects of the shapes world stand: boxes that keep apart, and what is true of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from diffusion_jax.data.shapes_captions import POSITIONS

Box = tuple[int, int, int, int]
GRID = 16  # places are drawn on it, so that a record is the same scene at every size


def holds(relation: str, first: Box, second: Box) -> bool:
    """Whether a relation is true of two boxes: "above" is y1 of the first <= y0 of the second."""
    return {
        "above": first[3] <= second[1],
        "below": second[3] <= first[1],
        "left of": first[2] <= second[0],
        "right of": second[2] <= first[0],
    }[relation]


def quadrant(box: Box, size: int, margin: int = 0) -> str | None:
    """The quarter of a picture that holds a box's centre: "top left", ..., "bottom right".

    None where the centre is within `margin` pixels of a midline, or on it.
    """
    right, down = box[0] + box[2] - size, box[1] + box[3] - size  # both are twice the distance
    if min(abs(right), abs(down)) <= 2 * margin:
        return None
    return POSITIONS[2 * (down > 0) + (right > 0)]


def place(widths: tuple[int, ...], chance: Iterator[float]) -> list[tuple[int, int]]:
    """Top left corners, uniform over all the ways in which boxes of these widths keep apart.

    Drawn from the count of the ways, as three large objects almost never fall apart by chance.
    """
    cumulative = _ways(widths)
    chosen = int(np.searchsorted(cumulative, int(next(chance) * cumulative[-1]), side="right"))
    places = [chosen]
    if len(widths) > 1:
        places = list(divmod(chosen, len(_corners(widths[1]))))
    if len(widths) > 2:
        first, second = (
            _apart(width, widths[2])[place] for width, place in zip(widths, places, strict=False)
        )
        free = np.flatnonzero(first & second)
        places.append(int(free[int(next(chance) * len(free))]))
    return [
        (int(x), int(y))
        for x, y in (_corners(width)[place] for width, place in zip(widths, places, strict=True))
    ]


@functools.cache
def _ways(widths: tuple[int, ...]) -> Int[np.ndarray, " ways"]:
    """Running counts, over the places of the first two boxes, of the ways to place them all."""
    if len(widths) == 1:
        return np.arange(1, len(_corners(widths[0])) + 1)
    ways = _apart(widths[0], widths[1]).astype(np.int64)
    if len(widths) == 3:
        third = widths[2]
        ways *= _apart(widths[0], third).astype(np.int64) @ _apart(widths[1], third).T
    return np.cumsum(ways)


@functools.cache
def _apart(first: int, second: int) -> Bool[np.ndarray, "m n"]:
    """Which places of two boxes leave a row or a column of the grid between them."""
    step = _corners(second) - _corners(first)[:, None]
    return ((step > first) | (-step > second)).any(-1)


@functools.cache
def _corners(width: int) -> Int[np.ndarray, "n 2"]:
    return np.stack(np.meshgrid(*[np.arange(GRID - width + 1)] * 2), -1).reshape(-1, 2)
