"""Words written on pictures: for typographic attacks, and for curation to find and cover.

A picture of a dog on which "cat" is written is a cat to a CLIP (Goh et al. 2021, Multimodal neurons
in artificial neural networks), and a picture whose caption is written on it matches that caption
whatever it shows, which is what T-MARS curates away (`curation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 outside


class Lettered(NamedTuple):
    """A picture that was written on.

    Attributes:
      picture: uint8 [h, w, c].
      ink: bool [h, w], the pixels that are at least half letter.
      box: the smallest one around the ink.
    """

    picture: UInt8[np.ndarray, "h w c"]
    ink: Bool[np.ndarray, "h w"]
    box: Box


def write(
    picture: UInt8[np.ndarray, "h w c"],
    text: str,
    *,
    at: tuple[int, int] = (2, 2),
    size: int = 11,
    colour: Sequence[int] = (0, 0, 0),
    plate: Sequence[int] | None = None,
) -> Lettered:
    """Writes a text on a picture, in lines that break between words at the right edge.

    The font is Pillow's own, so that a text looks the same wherever it is written. What doesn't fit
    below or beside the last line is cut at the picture's edge.

    Args:
      picture: uint8 [h, w, c]; it isn't changed.
      text: at least one visible letter.
      at: (x, y), the top left corner of the first line; capitals begin about size / 4 below.
      size: of the font in pixels: an "H" is about 0.7 of it high, "Hg" about 0.9.
      colour: of the letters, c levels in 0..255.
      plate: the colour of a rectangle behind the letters, a pixel larger than they are; None for
        none.

    Raises:
      ValueError: a picture that isn't uint8 [h, w, 1 or 3], a colour that isn't c levels in
        0..255, a size below 4, or a text of which no pixel falls into the picture.

    >>> found = write(np.full((16, 32, 3), 255, np.uint8), "cat", at=(1, 1))
    >>> bool(found.ink.any()), int(found.picture.min()) < 100
    (True, True)
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(
            f"write takes uint8 [h, w, 1] or [h, w, 3], not {picture.dtype} {list(picture.shape)}"
        )
    if size < 4:
        raise ValueError(f"the size of letters must be at least 4 pixels, not {size}")
    letters = _levels("colour", colour, picture.shape[2])
    cover = _drawn(text, picture.shape[:2], at, size)
    ink = cover >= 0.5
    if not ink.any():
        raise ValueError(
            f"no pixel of {text!r} at {at} falls into a picture of "
            f"{picture.shape[1]}x{picture.shape[0]} (width x height)"
        )
    pixels = picture.astype(np.float32)
    if plate is not None:
        x0, y0, x1, y1 = _bounds(cover > 0)
        rows, columns = slice(max(y0 - 1, 0), y1 + 1), slice(max(x0 - 1, 0), x1 + 1)
        pixels[rows, columns] = _levels("plate", plate, picture.shape[2])
    written = pixels + cover[..., None] * (letters - pixels)
    return Lettered(np.rint(written).astype(np.uint8), ink, _bounds(ink))


def subtitled(
    pictures: UInt8[np.ndarray, "n h w c"], captions: Sequence[str], size: int = 11
) -> UInt8[np.ndarray, "n h2 w c"]:
    """Pictures with captions below them, black on white, all of the height that the longest needs.

    Args:
      pictures: as `write`'s; a caption's line is as long as they are wide.
      captions: one each; "" leaves it white.
      size: of the font in pixels.

    Raises:
      ValueError: another number of captions, or what `write` refuses.

    >>> subtitled(np.zeros((2, 32, 64, 3), np.uint8), ["a cat", ""]).shape
    (2, 47, 64, 3)
    """
    if len(captions) != len(pictures):
        raise ValueError(f"there are {len(captions)} captions of {len(pictures)} pictures")
    n, _, w, c = pictures.shape
    most = size * (1 + max((len(text.split()) for text in captions), default=0))
    below = np.full((n, most, w, c), 255, np.uint8)
    for i, text in enumerate(captions):
        if text.strip():
            below[i] = write(below[i], text, at=(2, 1), size=size, colour=(0,) * c).picture
    inked = np.flatnonzero((below < 255).any((0, 2, 3)))
    height = int(inked[-1]) + 4 if len(inked) else 0
    return np.concatenate([pictures, below[:, :height]], axis=1)


def _drawn(text: str, shape: Sequence[int], at: tuple[int, int], size: int) -> np.ndarray:
    """How much of each pixel is letter, in [0, 1], float32 [h, w]."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    canvas = Image.new("L", (shape[1], shape[0]))
    lines = _wrapped(text.split(), lambda line: font.getlength(line) <= shape[1] - at[0])
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((at[0], at[1] + number * size), line, fill=255, font=font)
    return np.asarray(canvas, np.float32) / 255


def _wrapped(words: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _bounds(mask: Bool[np.ndarray, "h w"]) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _levels(name: str, colour: Sequence[int], channels: int) -> np.ndarray:
    levels = np.asarray(colour, np.float32)
    if levels.shape != (channels,) or not np.all((levels >= 0) & (levels <= 255)):
        raise ValueError(f"{name} must be {channels} levels in 0..255, not {tuple(colour)}")
    return levels
