"""Text is found where it was written, and covered by what surrounds it."""

import numpy as np
import pytest

from diffusion_jax.data import StrokeDetector, either, mask_text, tfds_source, write

COLOURS = [
    (0, 0, 0),
    (255, 255, 255),
    (200, 30, 30),
    (20, 60, 200),
    (250, 220, 40),
    (20, 120, 40),
]
LUMA = np.array([0.3, 0.59, 0.11])


def lettered(picture, caption, rng):
    """A caption somewhere, a third on a plate; others in a colour that can be read there."""
    at, size = (int(rng.integers(0, 12)), int(rng.integers(0, 44))), int(rng.integers(10, 14))
    colour = COLOURS[rng.integers(6)]
    if rng.random() < 1 / 3:
        plate = (255, 255, 255) if sum(colour) < 500 else (0, 0, 0)
        return write(picture, caption, at=at, size=size, colour=colour, plate=plate)
    x0, y0, x1, y1 = write(picture, caption, at=at, size=size).box
    beneath = picture[y0:y1, x0:x1].reshape(-1, 3).mean(0)
    weights = rng.uniform(0.5, 1, 6)
    distance = [
        abs((np.array(c) - beneath) @ LUMA) * w for c, w in zip(COLOURS, weights, strict=True)
    ]
    return write(picture, caption, at=at, size=size, colour=COLOURS[int(np.argmax(distance))])


def test_finds_captions_and_little_else(shared_data):
    """The numbers in StrokeDetector's docstring; nothing was set up on these pictures."""
    source, rng = tfds_source("emoji64", "test", shared_data), np.random.default_rng(0)
    captions = [source[int(i)]["caption"] for i in rng.permutation(len(source))]
    detector, ink, clean = StrokeDetector(), [], []
    for i, caption in enumerate(captions):
        picture = source[i]["image"]
        found = lettered(picture, caption, rng)
        ink.append(detector(found.picture)[found.ink].mean())
        clean.append(detector(picture).mean())
    ink, clean = np.array(ink), np.array(clean)
    measured = {
        "ink": ink.mean(),
        "texts": (ink >= 0.5).mean(),
        "clean area": clean.mean(),
        "clean pictures": (clean > 0).mean(),
    }
    print(measured)
    assert measured["ink"] > 0.93 and measured["texts"] > 0.96, measured
    assert measured["clean area"] < 0.05 and measured["clean pictures"] < 0.3, measured


@pytest.mark.parametrize("invert", [False, True])
def test_finds_dark_and_light_text_and_no_outline(invert):
    page = np.full((64, 64, 3), 255, np.uint8)
    found = write(page, "small letters", at=(4, 20))
    drawn = page.copy()
    drawn[8:56, 10:12] = drawn[8:56, 50:52] = drawn[8:10, 10:52] = drawn[54:56, 10:52] = 0
    text, outline = (255 - p if invert else p for p in (found.picture, drawn))
    mask = StrokeDetector()(text)
    assert mask[found.ink].mean() > 0.95 and mask.mean() < 0.6
    assert not StrokeDetector()(outline).any()


def test_light_and_dark_are_alike():
    ground = np.random.default_rng(0).integers(0, 60, (64, 64, 3)).astype(np.uint8)
    picture = write(ground, "noisy ground", at=(4, 20), colour=(140, 155, 120)).picture
    found = StrokeDetector()(picture)
    assert found.any() and not found.all()
    np.testing.assert_array_equal(StrokeDetector()(255 - picture), found)


def test_larger_text_needs_a_larger_height():
    page = np.full((128, 128, 3), 255, np.uint8)
    found = write(page, "large letters", at=(8, 40), size=24)
    one, two = StrokeDetector(), StrokeDetector(height=18)
    assert two(found.picture)[found.ink].mean() > 0.9 > one(found.picture)[found.ink].mean()
    both = either(one, two)(found.picture)
    np.testing.assert_array_equal(both, one(found.picture) | two(found.picture))


def test_moves_with_the_text_and_mirrors():
    page = np.full((64, 96, 3), 255, np.uint8)
    picture = write(page, "words", at=(20, 20)).picture
    mask = StrokeDetector()(picture)
    moved = StrokeDetector()(np.roll(picture, (5, 9), (0, 1)))
    np.testing.assert_array_equal(np.roll(mask, (5, 9), (0, 1)), moved)
    np.testing.assert_array_equal(StrokeDetector()(picture[..., ::-1]), mask)  # channels alike


def test_text_on_a_plain_ground_vanishes():
    ground = np.broadcast_to(np.uint8([40, 90, 200]), (64, 64, 3)).copy()
    found = write(ground, "gone now", at=(6, 20), colour=(255, 255, 0))
    mask = np.pad(found.ink, 0)
    from scipy import ndimage

    covered = mask_text(found.picture, ndimage.binary_dilation(mask, iterations=2))
    np.testing.assert_array_equal(covered, ground)
    assert (found.picture != ground).any()


def test_each_region_gets_the_mean_of_its_own_ring():
    picture = np.zeros((20, 40, 1), np.uint8)
    picture[:, 20:] = 200
    picture[4, 30] = 90  # in the ring of the second
    mask = np.zeros((20, 40), bool)
    mask[5:9, 5:9] = mask[5:9, 30:34] = mask[0:3, 18:22] = True
    covered = mask_text(picture, mask)
    assert np.all(covered[5:9, 5:9] == 0)
    ring = 6 * 6 - 4 * 4
    assert np.all(covered[5:9, 30:34] == round((200 * (ring - 1) + 90) / ring))
    assert np.all(covered[0:3, 18:22] == 100)  # half of its ring lies on each side
    np.testing.assert_array_equal(covered[~mask], picture[~mask])
    assert picture[0, 20] == 200 and mask.sum() == 44


def test_the_ring_leaves_out_other_regions_and_all_of_a_picture_is_its_mean():
    picture = np.full((8, 8, 1), 10, np.uint8)
    picture[3, 5] = 250
    mask = np.zeros((8, 8), bool)
    mask[3, 3] = mask[3, 5] = True
    assert mask_text(picture, mask)[3, 3] == 10 == mask_text(picture, mask)[3, 5]
    assert np.all(mask_text(picture, np.ones((8, 8), bool)) == round((63 * 10 + 250) / 64))
    np.testing.assert_array_equal(mask_text(picture, np.zeros((8, 8), bool)), picture)


def test_refusals():
    picture = np.zeros((8, 8, 3), np.uint8)
    for call, sentence in (
        (lambda: mask_text(picture, np.zeros((8, 9), bool)), r"must be bool \[8, 8\]"),
        (lambda: mask_text(picture, np.zeros((8, 8), bool)[:4]), r"not bool \[4, 8\]"),
        (lambda: StrokeDetector(height=5)(picture), "height must be at least 6"),
        (lambda: StrokeDetector(starts=0.1)(picture), "0 < grows <= starts must hold"),
        (lambda: either(), "at least one detector"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
