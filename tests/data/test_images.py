"""Levels survive the round trip, mosaics keep their tiles, and files are whole or absent."""

import errno
import os
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import grid, read_map, read_png, save_png, to_uint8


def random_levels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


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


def test_read_png_turns_colours_to_grey_and_back(tmp_path):
    colours = random_levels(2, 3, 3)
    save_png(tmp_path / "a.png", colours)
    np.testing.assert_array_equal(read_png(tmp_path / "a.png", (2, 3, 3)), colours)
    assert read_png(tmp_path / "a.png", (2, 3, 1)).shape == (2, 3, 1)


def test_sixteen_bits_are_rounded_to_eight(tmp_path):
    wide = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for channels in (1, 3):
        levels = read_png(tmp_path / "wide.png", (4, 4, channels))
        np.testing.assert_allclose(levels, np.stack([wide / 257] * channels, -1), atol=0.5)


def test_a_map_is_read_from_grey_levels_or_a_palette(tmp_path):
    numbers = random_levels(4, 5) % 4
    palette = Image.fromarray(numbers, "P")
    palette.putpalette(bytes(random_levels(12)))
    grey = np.stack([numbers] * 3, -1)
    for image in (palette, *map(Image.fromarray, (numbers, numbers.astype(np.uint16), grey))):
        image.save(tmp_path / "map.png")
        np.testing.assert_array_equal(read_map(tmp_path / "map.png", (4, 5)), numbers)
    Image.fromarray(numbers > 1).save(tmp_path / "map.png")  # one bit
    np.testing.assert_array_equal(read_map(tmp_path / "map.png", (4, 5)), numbers > 1)


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        (random_levels(4, 4, 4), "a.tiff has transparent pixels"),
        (np.ones((4, 4), np.float32), "a.tiff has levels of float32; 8 or 16 bits"),
        (np.full((4, 4), -1, np.int32), "a.tiff has levels of int32; 8 or 16 bits"),
        (random_levels(6, 4, 3), r"a.tiff has 4x6 pixels \(width x height\); 4x4 are needed"),
    ],
    ids=["alpha", "float", "negative", "size"],
)
def test_a_picture_that_is_not_one_of_pixels_is_refused(tmp_path, levels, sentence):
    Image.fromarray(levels).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=f"--image: .*{sentence}"):
        read_png(tmp_path / "a.tiff", (4, 4, 3), "--image")


def test_opaque_pixels_are_read(tmp_path):
    opaque = np.concatenate([random_levels(4, 4, 3), np.full((4, 4, 1), 255, np.uint8)], -1)
    Image.fromarray(opaque).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_png(tmp_path / "a.png", (4, 4, 3)), opaque[..., :3])


@pytest.mark.parametrize("levels", [random_levels(4, 4, 3), np.ones((4, 4), np.float32)])
def test_a_map_has_no_colours(tmp_path, levels):
    Image.fromarray(levels).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="its numbers are read from grey levels or a palette"):
        read_map(tmp_path / "a.tiff", (4, 4))


def test_damage_is_named_whatever_it_is(tmp_path):
    """Cut anywhere, or with wrong bytes; a header of 3.6 billion pixels decodes none of them."""
    save_png(tmp_path / "whole.png", random_levels(4, 4, 3))
    whole = (tmp_path / "whole.png").read_bytes()
    header = whole[12:16] + struct.pack(">II", 60000, 60000) + whole[24:29]
    bomb = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    rng = np.random.default_rng(0)
    flipped = []
    for _ in range(200):
        broken = bytearray(whole)
        broken[rng.integers(8, len(whole))] ^= rng.integers(1, 256)
        flipped.append(bytes(broken))
    refused = 0
    for damaged in (bomb, *(whole[:n] for n in range(len(whole) - 16)), *flipped):
        (tmp_path / "damaged.png").write_bytes(damaged)
        try:
            read_png(tmp_path / "damaged.png", (4, 4, 3))
        except (OSError, ValueError) as error:
            assert "damaged.png" in str(error)
            refused += 1
    assert refused > len(whole)
