"""A world of coloured shapes with captions, segmentations and boxes: computed, never downloaded.

Record i is a pure function of (seed, split, i): one, two or three objects on black, none touching
another, and a caption that is true of them. Captions whose CRC-32 is a multiple of ten belong to
the test split, the others to training, so no caption of the test split was ever trained on.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from diffusion_jax.data.shapes_captions import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    VOCABULARY,
    Described,
    Description,
    write_caption,
)
from diffusion_jax.data.shapes_layout import GRID, Box, holds, place, quadrant
from diffusion_jax.data.sources import Source
from diffusion_jax.data.tokenizers import Words

BACKGROUND = (0, 0, 0)
SPLITS = {"train": 40_000, "test": 2_000}
SHAPES_WORDS = Words(VOCABULARY, 18)  # the longest caption has 16 words


class Thing(NamedTuple):
    """One object: the names of its colour, shape and size, and its box (x0, y0, x1, y1).

    Boxes are in pixels, x to the right and y down, and don't hold x1 and y1 themselves.
    """

    colour: str
    shape: str
    size: str
    box: Box


class Scene(NamedTuple):
    """Objects in the order in which the caption names them, and what it says of them."""

    things: tuple[Thing, ...]
    description: Description

    @property
    def caption(self) -> str:
        return write_caption(self.description)


def shapes(split: str = "train", size: int = 16, count: int | None = None, seed: int = 0) -> Source:
    """Captioned pictures of coloured cubes, balls and cones; each is computed when it's asked for.

    Args:
      split: "train" or "test".
      size: height and width of the pictures, a multiple of 16.
      count: how many records; 40,000 to train on and 2,000 to test when not given.
      seed: which world. Worlds of any seed keep the same captions for testing.

    Returns:
      A source without labels. Its records hold `image` uint8 [size, size, 3], `caption` str,
      `segmentation` uint8 [size, size] (0 background, 1 cube, 2 ball, 3 cone), `boxes` float32
      [3, 4] (x0, y0, x1, y1 as fractions of the picture, zeros where there is no object) and
      `box_label` int32 [3] (colour * 3 + shape by their places in COLOURS and SHAPES; -1 where
      there is no object). Objects stand in the order in which the caption names them.

    Raises:
      ValueError: another split, a size that isn't a positive multiple of 16, a count below 1, or a
        negative seed.

    >>> shapes("test")[0]["caption"]
    'a small blue cube above a large blue ball , with a large blue ball'
    """
    _check_split(split)
    _check_size(size)
    count = SPLITS[split] if count is None else count
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    _check_seed(seed)
    return _Shapes(split, size, count, seed)


def scene(split: str, number: int, seed: int = 0, size: int = 16) -> Scene:
    """The objects and the description of a record, a pure function of the arguments.

    Raises:
      ValueError: another split than "train" and "test", a negative number or seed, or a size that
        isn't a positive multiple of 16.
    """
    _check_split(split)
    _check_size(size)
    _check_seed(seed)
    if number < 0:
        raise ValueError(f"a record's number is at least 0, not {number}")
    rng = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, tuple(SPLITS).index(split), number]))
    )
    # The number of objects is drawn once, outside the loop: else its distribution would depend on
    # which captions the rule holds out.
    objects = int(np.searchsorted([0.3, 0.8], rng.random(), side="right")) + 1
    while True:
        found = _draw(objects, iter(rng.random(24).tolist()))
        if is_held_out(found.caption) == (split == "test"):
            return Scene(tuple(_scaled(thing, size // GRID) for thing in found.things), found[1])


def is_held_out(caption: str) -> bool:
    """Whether a caption belongs to the test split: its CRC-32 is a multiple of ten."""
    return zlib.crc32(caption.encode()) % 10 == 0


def render(
    things: Sequence[Thing], size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"]]:
    """The picture of some objects, without antialiasing, and the shape of each of its pixels.

    Returns:
      The image, and the segmentation: 0 background, 1 cube, 2 ball, 3 cone.

    Raises:
      ValueError: the size isn't a positive multiple of 16, a box isn't a square in the picture, or
        an unknown colour or shape.
    """
    _check_size(size)
    image = np.full((size, size, 3), BACKGROUND, np.uint8)
    segmentation = np.zeros((size, size), np.uint8)
    for thing in things:
        x0, y0, x1, y1 = thing.box
        if not (0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size and x1 - x0 == y1 - y0):
            raise ValueError(f"box {thing.box} isn't a square in a picture of {size}x{size}")
        if thing.colour not in COLOURS:
            raise ValueError(f"a colour is one of {', '.join(COLOURS)}, not {thing.colour!r}")
        inside = shape_mask(thing.shape, x1 - x0)
        image[y0:y1, x0:x1][inside] = COLOURS[thing.colour]
        segmentation[y0:y1, x0:x1][inside] = SHAPES.index(thing.shape) + 1
    return image, segmentation


@functools.cache
def shape_mask(shape: str, width: int) -> Bool[np.ndarray, "width width"]:
    """The pixels of a shape that fills a box of `width` pixels; read-only.

    A cube is a filled square, a ball a disc, a cone a triangle with its apex up.
    """
    offset = np.arange(width) - (width - 1) / 2
    if shape == "cube":
        inside = np.ones((width, width), bool)
    elif shape == "ball":
        inside = offset**2 + offset[:, None] ** 2 <= (width / 2) ** 2
    elif shape == "cone":
        # The apex is one pixel wide, or two where the width is even.
        reach = np.maximum(np.arange(width), 1 - width % 2) / 2
        inside = np.abs(offset) <= reach[:, None]
    else:
        raise ValueError(f"a shape is one of {', '.join(SHAPES)}, not {shape!r}")
    inside.flags.writeable = False
    return inside


@dataclass(frozen=True, eq=False)
class _Shapes:
    split: str
    size: int
    count: int
    seed: int
    name = "shapes"
    classes = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.size, self.size, 3)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Any]:
        things, description = scene(self.split, range(self.count)[i], self.seed, self.size)
        image, segmentation = render(things, self.size)
        boxes = np.zeros((3, 4), np.float32)
        label = np.full(3, -1, np.int32)
        for row, thing in enumerate(things):
            boxes[row] = np.divide(thing.box, self.size)
            label[row] = tuple(COLOURS).index(thing.colour) * 3 + SHAPES.index(thing.shape)
        return {
            "image": image,
            "caption": write_caption(description),
            "segmentation": segmentation,
            "boxes": boxes,
            "box_label": label,
        }


def _draw(objects: int, chance: Iterator[float]) -> Scene:
    # Uniform floats, a fixed number at a time, because Generator's other methods may change what
    # they make of the same bits from one NumPy to the next.
    def pick(choices: Sequence[str]) -> str:
        return choices[int(next(chance) * len(choices))]

    kinds = [(pick(tuple(COLOURS)), pick(SHAPES), pick(tuple(SIZES))) for _ in range(objects)]
    corners = place(tuple(SIZES[size] for _, _, size in kinds), chance)
    things = tuple(
        Thing(*kind, (x, y, x + SIZES[kind[2]], y + SIZES[kind[2]]))
        for kind, (x, y) in zip(kinds, corners, strict=True)
    )
    described = tuple(
        Described(colour, shape, size if next(chance) < 0.5 else None)
        for colour, shape, size in kinds
    )
    if objects == 1:
        position = quadrant(things[0].box, GRID, margin=1)
        return Scene(things, Description(described, None, position if next(chance) < 0.5 else None))
    if next(chance) < 0.25:
        return Scene(things, Description(described))
    true = [word for word in RELATIONS if holds(word, things[0].box, things[1].box)]
    return Scene(things, Description(described, pick(true)))


def _scaled(thing: Thing, factor: int) -> Thing:
    x0, y0, x1, y1 = (edge * factor for edge in thing.box)
    return thing._replace(box=(x0, y0, x1, y1))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"shapes has the splits 'train' and 'test', not {split!r}")


def _check_size(size: int) -> None:
    if size < GRID or size % GRID:
        raise ValueError(f"size must be a positive multiple of {GRID}, not {size}")


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
