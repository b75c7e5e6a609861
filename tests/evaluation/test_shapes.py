"""The judge of the shapes world is right on real pictures, and says what is wrong with others."""

import numpy as np
import pytest

from diffusion_jax.data import COLOURS, SHAPES, SIZES, Thing, render, shapes
from diffusion_jax.evaluation import (
    judge_caption,
    judge_layout,
    judge_segmentation,
    read_picture,
    read_things,
)

CUBE = Thing("red", "cube", "small", (1, 1, 6, 6))
BALL = Thing("cyan", "ball", "large", (8, 8, 15, 15))
CAPTION = "a small red cube above a large cyan ball"
ASKED = 3 + 3 + 1 + 1


def picture(*things, size=16):
    return render(things, size)[0]


def moved(thing, x, y, width=None):
    width = width or thing.box[2] - thing.box[0]
    return thing._replace(box=(x, y, x + width, y + width))


def layout(things, size=16):
    boxes = np.array([thing.box for thing in things], np.float32).reshape(-1, 4) / size
    kinds = [list(COLOURS).index(t.colour) * 3 + SHAPES.index(t.shape) for t in things]
    return boxes, np.array(kinds, np.int32)


@pytest.fixture(scope="module", params=[("train", 16, 150), ("test", 16, 30), ("train", 32, 60)])
def records(request):
    split, size, count = request.param
    source = shapes(split, size)
    return [source[i] for i in range(count)]


def as_floats(image):
    return image.astype(np.float32) / 127.5 - 1


def noisy(image, i):
    noise = np.random.default_rng(i).integers(-40, 41, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "change", [lambda image, i: image, lambda image, i: as_floats(image), noisy]
)
def test_real_pictures_are_whole(records, change):
    for i, record in enumerate(records):
        shown = change(record["image"], i)
        verdict = judge_caption(shown, record["caption"])
        assert verdict.whole and verdict.obeyed == verdict.asked and not verdict.missed
        verdict = judge_layout(shown, record["boxes"], record["box_label"])
        assert verdict.whole and set(verdict.overlaps) == {1.0}
        assert judge_segmentation(shown, record["segmentation"]) == (1.0, 1.0)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SIZES)
def test_reads_every_object_everywhere(size, shape, name):
    width = SIZES[name] * size // 16
    for i, colour in enumerate(COLOURS):
        for x, y in ((0, 0), (size - width, 0), (3 + i, size - width), (i, i + 2)):
            thing = Thing(colour, shape, name, (x, y, x + width, y + width))
            reading = read_picture(picture(thing, size=size))
            assert reading.things == (thing,) and reading.unreadable == 0
            np.testing.assert_array_equal(reading.segmentation, render([thing], size)[1])


def test_objects_of_two_colours_may_touch():
    beside = moved(CUBE, 6, 2)._replace(colour="green")
    assert read_things(picture(CUBE, beside)) == (CUBE, beside)


class TestCaption:
    def test_obeyed(self):
        assert judge_caption(picture(CUBE, BALL), CAPTION) == (ASKED, ASKED, True, ())

    @pytest.mark.parametrize(
        ("things", "missed"),
        [
            ((CUBE._replace(colour="blue"), BALL), ("colour",)),
            ((CUBE._replace(shape="cone"), BALL), ("shape",)),
            ((moved(CUBE, 0, 0, 7), BALL), ("size",)),
            ((CUBE, moved(BALL, 8, 8, 5)), ("size",)),
            ((moved(CUBE, 1, 10), moved(BALL, 8, 1)), ("relation",)),
            ((moved(CUBE, 1, 5), BALL), ("relation",)),  # beside, no longer above
            ((CUBE, BALL, moved(CUBE, 9, 1)), ("number",)),
            ((CUBE,), ("colour", "shape", "size", "relation", "number")),
            ((), ("colour", "shape", "size") * 2 + ("relation", "number")),
        ],
    )
    def test_what_is_missed(self, things, missed):
        verdict = judge_caption(picture(*things), CAPTION)
        assert verdict == (ASKED - len(missed), ASKED, False, missed)

    def test_swapped_colours(self):
        swapped = CUBE._replace(colour="cyan"), BALL._replace(colour="red")
        verdict = judge_caption(picture(*swapped), CAPTION)
        assert verdict == (ASKED - 2, ASKED, False, ("colour", "colour"))

    def test_only_what_is_said_is_asked(self):
        shown = picture(CUBE)
        assert judge_caption(shown, "a red cube") == (3, 3, True, ())
        assert judge_caption(shown, "a small red cube at the top left") == (5, 5, True, ())
        verdict = judge_caption(shown, "a large red cube at the bottom left")
        assert verdict == (3, 5, False, ("size", "position"))

    @pytest.mark.parametrize(
        "caption", ["a red cube and a cyan ball", "a cyan ball and a red cube"]
    )
    def test_the_order_of_objects_is_free(self, caption):
        assert judge_caption(picture(CUBE, BALL), caption).whole

    def test_relations_hold_between_the_right_objects(self):
        other = moved(CUBE, 9, 1)
        shown = picture(CUBE, BALL, other)  # only the cube at the left is left of the ball
        assert judge_caption(shown, "a red cube left of a cyan ball , with a red cube").whole
        verdict = judge_caption(shown, "a cyan ball left of a red cube , with a red cube")
        assert verdict.missed == ("relation",)

    def test_an_unreadable_object_counts(self):
        shown = picture(CUBE)
        shown[10, 3:16] = COLOURS["green"]  # a bar is no shape
        assert read_picture(shown).unreadable == 1
        assert judge_caption(shown, "a red cube").missed == ("number",)
        assert not judge_layout(shown, *layout([CUBE])).whole

    def test_specks_are_noise(self):
        shown = picture(CUBE)
        shown[12, 12:16] = COLOURS["green"]
        assert read_things(shown) == (CUBE,) and judge_caption(shown, "a red cube").whole

    def test_refuses_other_sentences(self):
        with pytest.raises(ValueError, match="not 'purple'"):
            judge_caption(picture(CUBE), "a purple cube")


class TestLayout:
    def test_a_shifted_box(self):
        boxes, labels = layout([moved(CUBE, 2, 1), BALL])
        verdict = judge_layout(picture(CUBE, BALL), boxes, labels)
        assert verdict.overlaps == (pytest.approx(20 / 30), 1.0) and verdict.whole
        boxes, labels = layout([moved(CUBE, 3, 1), BALL])
        verdict = judge_layout(picture(CUBE, BALL), boxes, labels)
        assert verdict.overlaps == (pytest.approx(15 / 35), 1.0) and not verdict.whole

    def test_the_label_must_be_right(self):
        boxes, labels = layout([CUBE, BALL])
        for wrong in (CUBE._replace(colour="blue"), CUBE._replace(shape="ball")):
            assert judge_layout(picture(wrong, BALL), boxes, labels) == ((0.0, 1.0), False)

    def test_an_object_answers_for_one_box(self):
        boxes, labels = layout([CUBE, CUBE])
        assert sorted(judge_layout(picture(CUBE), boxes, labels).overlaps) == [0.0, 1.0]

    def test_an_object_too_many(self):
        verdict = judge_layout(picture(CUBE, BALL), *layout([CUBE]))
        assert verdict == ((1.0,), False)

    def test_nothing_asked_nothing_shown(self):
        boxes, labels = np.zeros((3, 4), np.float32), np.full(3, -1)
        assert judge_layout(picture(), boxes, labels) == ((), True)
        assert judge_layout(picture(CUBE), boxes, labels) == ((), False)


class TestSegmentation:
    def test_an_erased_object(self):
        wanted = render([CUBE, BALL], 16)[1]
        verdict = judge_segmentation(picture(BALL), wanted)
        assert verdict.everywhere == pytest.approx(1 - 25 / 256)
        assert verdict.foreground == pytest.approx(37 / 62)

    def test_colour_is_free_and_shape_is_not(self):
        wanted = render([CUBE], 16)[1]
        assert judge_segmentation(picture(CUBE._replace(colour="blue")), wanted) == (1.0, 1.0)
        assert judge_segmentation(picture(CUBE._replace(shape="ball")), wanted).foreground == 0

    def test_pixels_of_no_object_equal_nothing(self):
        shown = picture()
        shown[10] = COLOURS["green"]
        for wanted in (0, 1, 255):
            verdict = judge_segmentation(shown, np.full((16, 16), wanted, np.uint8))
            assert verdict.everywhere == (15 / 16 if wanted == 0 else 0)

    def test_an_empty_picture(self):
        assert judge_segmentation(picture(), np.zeros((16, 16), np.uint8)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: read_things(np.zeros((24, 24, 3), np.uint8)), r"16, not \[24, 24, 3\]"),
        (lambda: read_things(np.full((16, 16, 3), np.nan, np.float32)), "not finite"),
        (
            lambda: judge_layout(picture(), np.zeros((1, 4), np.float32), np.array([18])),
            r"in -1\.\.17, not int64 in 18\.\.18",
        ),
        (
            lambda: judge_layout(picture(), np.zeros((1, 4), np.float32), np.array([0])),
            "x0 < x1 <= 1 and 0 <= y0 < y1",
        ),
        (
            lambda: judge_layout(picture(), np.array([[0, 0, 7, 7]], np.float32), np.array([0])),
            "as fractions of the picture",
        ),
        (lambda: read_things(np.zeros((0, 0, 3), np.uint8)), r"not \[0, 0, 3\]"),
        (
            lambda: judge_segmentation(picture(), np.zeros((8, 8), np.uint8)),
            r"\[16, 16\] needs a segmentation of that size, not \[8, 8\]",
        ),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
