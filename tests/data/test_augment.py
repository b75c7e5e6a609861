"""Augmentations: each picture by its own key, and nothing but what they say."""

import numpy as np
import pytest

from diffusion_jax.data.augment import crop, example_keys, patch, uniform

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8)
KEYS = example_keys(0, np.arange(6))


def test_a_whole_crop_is_the_picture():
    np.testing.assert_array_equal(crop(1.0)(IMAGES, KEYS), IMAGES)


def test_a_crop_depends_on_its_own_key():
    many, alone = crop(0.5)(IMAGES, KEYS), crop(0.5)(IMAGES[3:4], KEYS[3:4])
    np.testing.assert_array_equal(many[3:4], alone)
    assert (crop(0.5)(IMAGES[:1].repeat(6, 0), KEYS) != IMAGES[:1]).mean() > 0.5


def test_a_crop_of_a_ramp_is_a_part_of_it():
    """Of a picture whose pixels are their row and column, the crop tells its side and place."""
    ramp = np.stack(np.meshgrid(*[np.arange(64)] * 2, indexing="ij"), -1).astype(np.uint8)
    keys = example_keys(1, np.arange(500))
    seen = crop(0.5)(np.broadcast_to(ramp, (500, *ramp.shape)), keys).astype(float)
    inner = seen[:, 8:56, 8:56]
    sides = (inner[:, -1, 0, 0] - inner[:, 0, 0, 0]) / 47
    across = (inner[:, 0, -1, 1] - inner[:, 0, 0, 1]) / 47
    np.testing.assert_allclose(sides, across, atol=0.05)
    level = 1 / 47  # pixels are whole numbers: so far is a side off at most
    assert 0.5 - level <= sides.min() < 0.52 and 0.98 < sides.max() <= 1 + level
    np.testing.assert_allclose(sides.mean(), 0.75, atol=0.02)
    top = seen[:, 0, 0, 0]
    assert top.min() == 0 and top.max() > 25  # up to half of the picture


def test_sides_and_places_are_independent():
    keys = example_keys(2, np.arange(4000))
    draws = np.stack([uniform(keys, j) for j in range(3)])
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.06
    np.testing.assert_allclose(draws.mean(1), 0.5, atol=0.03)


@pytest.mark.parametrize("least", [0.0, -1.0, 1.5, float("nan")])
def test_a_side_out_of_range(least):
    with pytest.raises(ValueError, match="least side"):
        crop(least)


def test_patches_are_parts_of_the_pictures_and_lie_everywhere():
    rows, columns = np.mgrid[:6, :9].astype(np.uint8)
    image = np.stack([rows, columns], axis=-1)
    many = patch(4)(np.repeat(image[None], 400, 0), example_keys(0, np.arange(400)))
    assert many.shape == (400, 4, 4, 2)
    np.testing.assert_array_equal(many - many[:, :1, :1], np.repeat(image[None, :4, :4], 400, 0))
    corners = {tuple(corner) for corner in many[:, 0, 0].tolist()}
    assert corners == {(i, j) for i in range(3) for j in range(6)}
    again = patch(4)(image[None], example_keys(0, np.arange(400))[7:8])
    np.testing.assert_array_equal(again[0], many[7])


def test_patches_larger_than_the_picture_are_refused():
    with pytest.raises(ValueError, match="no 7x7 in pictures of 6x9"):
        patch(7)(np.zeros((1, 6, 9, 3), np.uint8), np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="at least 1"):
        patch(0)
