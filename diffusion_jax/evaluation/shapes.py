"""The exact judge of the shapes world: it reads the objects back from a picture, and compares.

A picture is read in three steps. Each pixel becomes the nearest colour of background and palette.
Each colour falls into connected components (by edges and corners), of which those with less than a
third of the pixels of the smallest shape are noise. A component is the shape and size, at the
place, whose mask overlaps it most (intersection over union); under READABLE it isn't any.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Complex, Float, Integer, UInt8
from scipy import ndimage, optimize

from diffusion_jax.data.shapes import BACKGROUND, Thing, shape_mask
from diffusion_jax.data.shapes_captions import COLOURS, SHAPES, SIZES, Described, parse_caption
from diffusion_jax.data.shapes_layout import GRID, Box, holds, quadrant
from diffusion_jax.evaluation.inputs import to_levels

Picture = UInt8[np.ndarray | jax.Array, "s s 3"] | Float[np.ndarray | jax.Array, "s s 3"]

READABLE = 0.6  # the least overlap with a mask that makes a component an object
UNREADABLE = 255  # the segmentation's class of pixels that are neither background nor an object

_PALETTE = np.array([BACKGROUND, *COLOURS.values()], np.int32)
_IN_PLANE = np.zeros((3, 3, 3), bool)  # neighbours by edge and corner, within one colour
_IN_PLANE[1] = True


class Reading(NamedTuple):
    """What a picture shows.

    Attributes:
      things: the objects, with their boxes in pixels, from the first colour of COLOURS to the last.
      unreadable: how many components are too large for noise, and not like any object.
      segmentation: uint8 [s, s]; 0 background, 1 cube, 2 ball, 3 cone, UNREADABLE for the rest.
    """

    things: tuple[Thing, ...]
    unreadable: int
    segmentation: UInt8[np.ndarray, "s s"]


class CaptionVerdict(NamedTuple):
    """How far a picture obeys its caption.

    Attributes:
      obeyed: how many of the things asked for the picture shows.
      asked: each object's colour, shape, and size if it is mentioned; the relation; the position;
        and, always, the number of objects.
      whole: whether it shows them all.
      missed: the kind of each that it doesn't show, such as ("size", "relation").
    """

    obeyed: int
    asked: int
    whole: bool
    missed: tuple[str, ...]


class LayoutVerdict(NamedTuple):
    """How far a picture obeys its boxes.

    Attributes:
      overlaps: for each box asked for, its intersection over union with the object that was put
        there, in [0, 1]; 0 where there is none of that colour and shape.
      whole: whether all are at least 1/2, and there is no other object.
    """

    overlaps: tuple[float, ...]
    whole: bool


class SegmentationVerdict(NamedTuple):
    """How far a picture obeys its map of shapes, as shares of pixels in [0, 1].

    Attributes:
      everywhere: pixels whose shape is the map's.
      foreground: the same among pixels that aren't background in the picture or aren't in the map;
        1 where there are none.
    """

    everywhere: float
    foreground: float


def read_things(picture: Picture) -> tuple[Thing, ...]:
    """The objects in a picture, [s, s, 3], uint8 or floats in [-1, 1]; see `read_picture`."""
    return read_picture(picture).things


def read_picture(picture: Picture) -> Reading:
    """The objects in a picture, and what can't be read as one.

    Args:
      picture: [s, s, 3], uint8 or floats in [-1, 1]; s is a multiple of 16.

    Raises:
      ValueError: another shape, or values that `to_levels` refuses.
    """
    levels = _checked(picture)
    size = len(levels)
    nearest = np.square(levels[:, :, None].astype(np.int32) - _PALETTE).sum(-1).argmin(-1)
    planes = nearest == np.arange(1, len(_PALETTE))[:, None, None]
    components, _ = ndimage.label(planes, _IN_PLANE)
    component = components.max(0)  # a pixel belongs to the plane of one colour at most
    pixels = np.bincount(component.ravel())
    pixels[0] = 0
    templates = _templates(size)
    segmentation = np.where(component > 0, UNREADABLE, 0).astype(np.uint8)
    things: list[Thing] = []
    kept = np.flatnonzero(pixels >= min(templates.areas) / 3)
    for number in kept:
        mask = component == number
        kind, x, y, overlap = _best_match(mask, templates)
        if overlap < READABLE:
            continue
        shape, name = templates.kinds[kind]
        width = SIZES[name] * size // GRID
        colour = tuple(COLOURS)[nearest[mask][0] - 1]
        things.append(Thing(colour, shape, name, (x, y, x + width, y + width)))
        segmentation[mask] = SHAPES.index(shape) + 1
    return Reading(tuple(things), len(kept) - len(things), segmentation)


def judge_caption(picture: Picture, caption: str) -> CaptionVerdict:
    """Does the picture show what the caption says?

    Which object of the picture is which of the caption's is chosen in the picture's favour: as the
    assignment that obeys most. A position asks for the quarter that holds the object's centre.

    Args:
      picture: [s, s, 3], uint8 or floats in [-1, 1].
      caption: one of the shapes world's grammar.

    Raises:
      ValueError: a caption outside the grammar, or a picture that `read_picture` refuses.
    """
    described, relation, position = parse_caption(caption)
    things, unreadable, segmentation = read_picture(picture)
    # As many absent objects as are asked for: an assignment may leave any of them out.
    candidates = [*things, *[None] * len(described)]
    misses = [[_missed(each, thing) for thing in candidates] for each in described]

    def missed(assignment: tuple[int, ...]) -> tuple[str, ...]:
        first = candidates[assignment[0]]
        found = sum((row[j] for row, j in zip(misses, assignment, strict=True)), ())
        if relation:
            second = candidates[assignment[1]]
            if first is None or second is None or not holds(relation, first.box, second.box):
                found += ("relation",)
        if position and (first is None or quadrant(first.box, segmentation.shape[0]) != position):
            found += ("position",)
        return found

    assignments = itertools.permutations(range(len(candidates)), len(described))
    least = min(map(missed, assignments), key=len)
    if len(things) + unreadable != len(described):
        least += ("number",)
    asked = sum(2 + (each.size is not None) for each in described)
    asked += (relation is not None) + (position is not None) + 1
    return CaptionVerdict(asked - len(least), asked, not least, least)


def judge_layout(
    picture: Picture,
    boxes: Float[np.ndarray | jax.Array, "n 4"],
    labels: Integer[np.ndarray | jax.Array, " n"],
) -> LayoutVerdict:
    """Are the objects where the boxes say? Each object of a label answers for one box at most.

    Args:
      picture: [s, s, 3], uint8 or floats in [-1, 1].
      boxes: (x0, y0, x1, y1) as fractions of the picture.
      labels: colour * 3 + shape, as `box_label` of the shapes world; boxes of -1 aren't asked for.

    Raises:
      ValueError: boxes that aren't [n, 4] with a label each, have no area or leave the picture, a
        label that isn't an integer in -1..17, or a picture that `read_picture` refuses.
    """
    places, kinds = np.asarray(boxes, np.float64), np.asarray(labels)
    if places.shape != (*kinds.shape, 4) or kinds.ndim != 1:
        raise ValueError(
            f"boxes must be [n, 4] with n labels, not {list(places.shape)} and {list(kinds.shape)}"
        )
    count = len(COLOURS) * len(SHAPES)
    integers = np.issubdtype(kinds.dtype, np.integer)
    if kinds.size and not (integers and -1 <= kinds.min() <= kinds.max() < count):
        raise ValueError(
            f"labels must be integers in -1..{count - 1}, not {kinds.dtype} in "
            f"{kinds.min()}..{kinds.max()}"
        )
    asked = np.flatnonzero(kinds >= 0)
    first, last = places[asked, :2], places[asked, 2:]
    if not ((first >= 0) & (first < last) & (last <= 1)).all():
        raise ValueError(
            "boxes must be x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, as "
            "fractions of the picture"
        )
    things, unreadable, segmentation = read_picture(picture)
    overlaps = np.zeros((len(asked), len(things)))
    for row, number in enumerate(asked):
        colour, shape = divmod(int(kinds[number]), len(SHAPES))
        for column, thing in enumerate(things):
            if (thing.colour, thing.shape) == (tuple(COLOURS)[colour], SHAPES[shape]):
                overlaps[row, column] = _overlap(places[number] * len(segmentation), thing.box)
    best = np.zeros(len(asked))
    rows, columns = optimize.linear_sum_assignment(overlaps, maximize=True)
    best[rows] = overlaps[rows, columns]
    whole = bool((best >= 0.5).all()) and len(things) + unreadable == len(asked)
    return LayoutVerdict(tuple(best.tolist()), whole)


def judge_segmentation(
    picture: Picture, segmentation: Integer[np.ndarray | jax.Array, "h w"]
) -> SegmentationVerdict:
    """Does each pixel show the shape that the map gives it? Pixels of no object are always wrong.

    Args:
      picture: [s, s, 3], uint8 or floats in [-1, 1].
      segmentation: [s, s]; 0 background, 1 cube, 2 ball, 3 cone.

    Raises:
      ValueError: a map of another size, or a picture that `read_picture` refuses.
    """
    wanted, shown = np.asarray(segmentation), read_picture(picture).segmentation
    if wanted.shape != shown.shape:
        raise ValueError(
            f"a picture of {list(shown.shape)} needs a segmentation of that size, "
            f"not {list(wanted.shape)}"
        )
    # A map that holds UNREADABLE itself gains nothing from it.
    right = (wanted == shown) & (shown != UNREADABLE)
    foreground = (wanted != 0) | (shown != 0)
    return SegmentationVerdict(
        float(right.mean()), float(right[foreground].mean()) if foreground.any() else 1.0
    )


class _Templates(NamedTuple):
    kinds: tuple[tuple[str, str], ...]  # shape and size
    areas: tuple[int, ...]
    spectra: Complex[np.ndarray, "kinds s half"]
    fits: Bool[np.ndarray, "kinds s s"]  # corners from which the box stays in the picture


@functools.cache
def _templates(size: int) -> _Templates:
    kinds = tuple(itertools.product(SHAPES, SIZES))
    masks = np.zeros((len(kinds), size, size))
    fits = np.zeros((len(kinds), size, size), bool)
    for row, (shape, name) in enumerate(kinds):
        width = SIZES[name] * size // GRID
        masks[row, :width, :width] = shape_mask(shape, width)
        fits[row, : size - width + 1, : size - width + 1] = True
    areas = tuple(int(mask.sum()) for mask in masks)
    return _Templates(kinds, areas, np.fft.rfft2(masks).conj(), fits)


def _best_match(
    mask: Bool[np.ndarray, "s s"], templates: _Templates
) -> tuple[int, int, int, float]:
    """The template and its corner (x, y) that overlap a component most, and how much."""
    # All places of all templates at once, as a correlation. It is circular, but no place that fits
    # reaches around the picture's edge.
    shared = np.rint(np.fft.irfft2(np.fft.rfft2(mask) * templates.spectra, mask.shape))
    areas = np.array(templates.areas)[:, None, None]
    overlap = np.where(templates.fits, shared / (mask.sum() + areas - shared), -1)
    kind, y, x = np.unravel_index(overlap.argmax(), overlap.shape)
    return int(kind), int(x), int(y), float(overlap[kind, y, x])


def _missed(described: Described, thing: Thing | None) -> tuple[str, ...]:
    """The attributes asked for that an object doesn't have; an absent one has none."""
    asked = {"colour": described.colour, "shape": described.shape, "size": described.size}
    return tuple(
        kind
        for kind, value in asked.items()
        if value is not None and (thing is None or getattr(thing, kind) != value)
    )


def _overlap(one: Float[np.ndarray, " 4"], box: Box) -> float:
    """Intersection over union of two boxes."""
    other = np.array(box)
    shared = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def _checked(picture: Picture) -> UInt8[np.ndarray, "s s 3"]:
    pixels = np.asarray(picture)
    size = pixels.shape[0] if pixels.ndim == 3 else 0
    if not size or size % GRID or pixels.shape != (size, size, 3):
        raise ValueError(
            f"the shapes judge reads one picture [s, s, 3], s a multiple of {GRID}, "
            f"not {list(pixels.shape)}"
        )
    return to_levels(pixels[None])[0]
