"""Letters stand where they should, and nowhere else."""

import numpy as np
import pytest

from diffusion_jax.data import subtitled, write

PAGE = np.full((40, 64, 3), 255, np.uint8)


def test_only_the_letters_change_and_the_page_not():
    before = PAGE.copy()
    found = write(PAGE, "cat", at=(5, 6), colour=(200, 0, 0))
    np.testing.assert_array_equal(PAGE, before)
    x0, y0, x1, y1 = found.box
    assert 5 <= x0 < x1 <= 30 and 6 <= y0 < y1 <= 20
    outside = np.ones(PAGE.shape[:2], bool)
    outside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False  # a pixel of antialiasing
    np.testing.assert_array_equal(found.picture[outside], PAGE[outside])
    assert found.ink[y0:y1, x0:x1].any((0, 1)).all() and not found.ink[outside].any()
    assert found.picture[found.ink][:, 1].max() < 130 <= found.picture[~found.ink][:, 1].min()


def test_a_move_of_the_corner_moves_the_letters():
    one, two = write(PAGE, "cat", at=(3, 4)), write(PAGE, "cat", at=(13, 15))
    np.testing.assert_array_equal(np.roll(one.ink, (11, 10), (0, 1)), two.ink)


@pytest.mark.parametrize("size", [8, 11, 16, 24])
def test_the_size_is_the_font_s(size):
    page = np.zeros((60, 90, 1), np.uint8)
    for text, ratio in (("H", 0.7), ("Hg", 0.9)):
        box = write(page, text, size=size, colour=(255,)).box
        assert abs(box[3] - box[1] - ratio * size) <= 1.5


def test_lines_break_between_words_at_the_edge():
    one, two = write(PAGE, "one", at=(2, 2)), write(PAGE, "one twotwo three", at=(2, 2))
    assert two.box[2] <= 64 and two.box[3] > one.box[3] + 8
    np.testing.assert_array_equal(two.ink[2:13, 2:15], one.ink[2:13, 2:15])
    short = write(PAGE, "one two", at=(2, 2))  # fits beside
    assert short.box[3] <= 14 and short.box[2] > one.box[2] + 10


def test_a_plate_lies_behind_the_letters():
    found = write(np.zeros_like(PAGE), "cat", at=(5, 6), plate=(250, 250, 0))
    x0, y0, _, y1 = found.box
    assert np.all(found.picture[y0 - 1 : y1 + 1, x0 - 2] == (250, 250, 0))
    assert found.picture[found.ink].max() < 130
    assert np.all(found.picture[: y0 - 3] == 0)


@pytest.mark.parametrize(
    ("picture", "text", "options", "sentence"),
    [
        (PAGE, "", {}, "no pixel of ''"),
        (PAGE, "cat", {"at": (2, 50)}, r"no pixel of 'cat' at \(2, 50\) .* 64x40"),
        (PAGE, "cat", {"colour": (0, 0)}, "colour must be 3 levels"),
        (PAGE, "cat", {"plate": (0, 0, 256)}, "plate must be 3 levels"),
        (PAGE, "cat", {"size": 3}, "at least 4 pixels"),
        (PAGE[..., :2], "cat", {}, r"not uint8 \[40, 64, 2\]"),
    ],
)
def test_refusals(picture, text, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        write(picture, text, **options)


def test_captions_stand_below_their_pictures():
    pictures = np.zeros((3, 20, 64, 3), np.uint8)
    one = subtitled(pictures, ["a cat", "", "a cat"])
    np.testing.assert_array_equal(one[:, :20], pictures)
    below = one[:, 20:]
    assert below[1].min() == 255 and below[0].min() < 60
    np.testing.assert_array_equal(below[0], below[2])
    longer = subtitled(pictures, ["a cat", "", "a cat in a very tall hat"])
    assert longer.shape[1] > one.shape[1]
    np.testing.assert_array_equal(longer[:2, : one.shape[1]], one[:2])
    assert subtitled(pictures, ["", "", " "]).shape == pictures.shape
    with pytest.raises(ValueError, match="2 captions of 3 pictures"):
        subtitled(pictures, ["a", "b"])
