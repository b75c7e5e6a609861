"""Levels survive the round trip, mosaics keep their tiles, and files are whole or absent."""

import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import grid, save_png, to_uint8


def test_every_level_survives_the_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    x = levels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(to_uint8(x), levels)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(x)), levels)
    np.testing.assert_array_equal(to_uint8(x + 0.4 / 127.5), levels)  # nearest, not below
    np.testing.assert_array_equal(to_uint8(x - 0.4 / 127.5), levels)


def test_what_lies_outside_is_clipped():
    outside = np.array([-5, 5, -np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(to_uint8(outside), [0, 255, 0, 255, 0])
    assert to_uint8(jnp.full((2, 3), 7, jnp.bfloat16)).shape == (2, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("columns", "rows"), [(None, 3), (2, 4), (7, 1), (10, 1)])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("scale", [1, 3])
def test_tiles_lie_row_by_row(channels, columns, rows, padding, scale):
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, channels), dtype=np.uint8)
    mosaic = grid(images, columns, padding, scale)
    columns = columns or 3
    height, width = 4 * scale + padding, 5 * scale + padding
    assert mosaic.shape == (rows * height + padding, columns * width + padding, channels)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        tile = mosaic[row * height + padding : (row + 1) * height, column * width + padding :][
            :, : 5 * scale
        ]
        for y in range(scale):
            np.testing.assert_array_equal(tile[y::scale, ::scale], image)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"images": np.zeros((2, 3, 3, 1), np.float32)}, "not float32 .*to_uint8 converts"),
        ({"images": np.zeros((3, 3, 1), np.uint8)}, r"not uint8 \[3, 3, 1\]"),
        ({"images": np.zeros((0, 3, 3, 1), np.uint8)}, r"not uint8 \[0, 3, 3, 1\]"),
        ({"columns": 0}, "columns must be at least 1, not 0"),
        ({"padding": -1}, "padding must be at least 0, not -1"),
        ({"scale": 0}, "scale must be at least 1, not 0"),
    ],
)
def test_grid_refuses(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        grid(**({"images": np.zeros((2, 3, 3, 1), np.uint8)} | arguments))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_picture(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 9, channels), dtype=np.uint8)
    for _ in range(2):  # the second overwrites the first
        save_png(tmp_path / "picture.png", image)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(tmp_path / "picture.png") as read:
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (1, 4, 4, 3)])
def test_save_png_refuses_other_shapes(tmp_path, shape):
    with pytest.raises(ValueError, match=r"takes uint8 \[h, w, 1\] or \[h, w, 3\], not uint8"):
        save_png(tmp_path / "picture.png", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "picture.png"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(
        OSError, match=r"could not write .*picture\.png: No space left on device"
    ) as caught:
        save_png(path, np.zeros((4, 4, 1), np.uint8))
    assert caught.value.errno == errno.ENOSPC
    assert [found.name for found in tmp_path.iterdir()] == ["picture.png"]
    assert path.read_bytes() == b"before"


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"could not write .*nowhere/picture\.png"):
        save_png(tmp_path / "nowhere" / "picture.png", np.zeros((4, 4, 1), np.uint8))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"could not write .*file/picture\.png"):
        save_png(tmp_path / "file" / "picture.png", np.zeros((4, 4, 1), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"could not write .*folder\.png"):
        save_png(tmp_path / "folder.png", np.zeros((4, 4, 1), np.uint8))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.png"}
