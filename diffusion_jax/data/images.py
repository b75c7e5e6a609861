"""From arrays to pictures: levels, mosaics, PNG files."""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Int

from diffusion_jax.data.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

_GREY = 127


def to_uint8(x: np.ndarray | jax.Array) -> np.ndarray:
    """[-1, 1] to levels 0..255, rounded to the nearest and clipped; any shape. NaN becomes 0.

    >>> to_uint8(np.array([-1.0, 0.0, 1.0, 9.0]))
    array([  0, 128, 255, 255], dtype=uint8)
    """
    levels = np.rint((np.asarray(x, np.float32) + 1) * 127.5)
    return np.nan_to_num(np.clip(levels, 0, 255)).astype(np.uint8)


def grid(
    images: np.ndarray, columns: int | None = None, padding: int = 1, scale: int = 1
) -> np.ndarray:
    """A mosaic, row by row: uint8 [n, h, w, c] to uint8 [H, W, c].

    Args:
      columns: pictures in a row; as near to a square as fits when not given.
      padding: pixels of grey between pictures and around them (after scaling).
      scale: each pixel becomes a square of this side.

    Raises:
      ValueError: images aren't uint8 [n, h, w, c] with n > 0, or a number is out of range.

    >>> grid(np.zeros((5, 8, 8, 3), np.uint8), columns=3).shape
    (19, 28, 3)
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"grid takes uint8 images [n, h, w, c], not {images.dtype} {list(images.shape)}; "
            "to_uint8 converts from [-1, 1]"
        )
    for name, value, least in (
        ("columns", columns, 1),
        ("padding", padding, 0),
        ("scale", scale, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    columns = columns or math.ceil(math.sqrt(len(images)))
    tiles = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, h, w, c = tiles.shape
    rows = -(-n // columns)
    mosaic = np.full(
        (rows * (h + padding) + padding, columns * (w + padding) + padding, c), _GREY, np.uint8
    )
    for i, tile in enumerate(tiles):
        top, left = padding + i // columns * (h + padding), padding + i % columns * (w + padding)
        mosaic[top : top + h, left : left + w] = tile
    return mosaic


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 [h, w, 1] or [h, w, 3] as a PNG, atomically: a reader never sees half a file.

    Raises:
      ValueError: the image has another type or shape.
      OSError: it can't be written (no such folder, no permission, a full disk); nothing is left
        behind, and a file that was there before is unharmed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"save_png takes uint8 [h, w, 1] or [h, w, 3], not {image.dtype} {list(image.shape)}"
        )
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())


def read_png(
    path: str | os.PathLike[str], shape: tuple[int, ...], what: str = "the picture"
) -> np.ndarray:
    """A picture file as uint8 of this shape [h, w, c]; one channel is its grey, three its colours.

    Sixteen bits are rounded to eight.

    Raises:
      OSError: there is no such file, or it isn't a picture.
      ValueError: it has another height or width, transparent pixels, or levels that aren't 8 or 16
        bits.
    """
    picture = _opened(path, (shape[1], shape[0]), what)
    name = f"{what}: {os.fspath(path)}"
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise ValueError(
            f"{name} has transparent pixels, whose colour nobody knows; put it on a background"
        )
    if picture.mode.startswith(("I", "F")):  # one channel of more than 8 bits
        wide = np.asarray(picture)
        if wide.dtype.kind == "f" or wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"{name} has levels of {wide.dtype}; 8 or 16 bits can be read")
        levels = np.rint(wide / 257).astype(np.uint8)[..., None].repeat(shape[2], axis=2)
    else:
        levels = np.asarray(picture.convert("L" if shape[2] == 1 else "RGB"))
    return levels.reshape(shape)


def png_size(path: str | os.PathLike[str], what: str = "the picture") -> tuple[int, int]:
    """Height and width of a picture file, which isn't decoded.

    Raises:
      OSError: there is no such file, or it isn't a picture.
    """
    with _reading(path, what) as picture:
        return picture.height, picture.width


def read_map(
    path: str | os.PathLike[str], size: tuple[int, int], what: str = "the map"
) -> Int[np.ndarray, "h w"]:
    """A picture file whose pixels are numbers, int32 [h, w]: its grey levels or palette's entries.

    Raises:
      OSError: there is no such file, or it isn't a picture.
      ValueError: it has another height or width, or colours.
    """
    picture = _opened(path, (size[1], size[0]), what)
    if picture.mode == "P" or not picture.getbands()[1:]:
        levels = np.asarray(picture)
    else:
        colours = np.asarray(picture.convert("RGB"))
        levels = colours[..., 0]
        if np.any(colours != levels[..., None]):
            levels = colours
    if levels.ndim != 2 or levels.dtype.kind == "f":
        raise ValueError(
            f"{what}: {os.fspath(path)} has {'colours' if levels.ndim > 2 else levels.dtype}; its "
            "numbers are read from grey levels or a palette's entries"
        )
    return levels.astype(np.int32)


def _opened(path: str | os.PathLike[str], size: tuple[int, int], what: str) -> Image.Image:
    """A picture of this width and height, decoded; nothing of another size is."""
    with _reading(path, what) as picture:
        found = picture.size
        if found == size:
            return picture.copy()
    raise ValueError(
        f"{what}: {os.fspath(path)} has {found[0]}x{found[1]} pixels (width x height); "
        f"{size[0]}x{size[1]} are needed"
    )


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str], what: str) -> Iterator[Image.Image]:
    """An open picture file; what is damaged in it shows as OSError."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                yield picture
    except Exception as error:  # damage shows as OSError, SyntaxError, ValueError, a bomb's own...
        if isinstance(error, OSError) and error.errno:
            raise
        raise OSError(f"{what}: {os.fspath(path)} is no picture that can be read") from error
