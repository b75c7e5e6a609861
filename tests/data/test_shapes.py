"""The shapes world keeps its word: captions, masks and boxes are true of the pictures."""

import itertools
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffusion_jax.data import (
    COLOURS,
    SHAPES,
    SHAPES_WORDS,
    SIZES,
    Described,
    Description,
    Source,
    Thing,
    batches,
    parse_caption,
    render,
    scene,
    shapes,
    write_caption,
)

RECORDS = {"train": 200, "test": 60}


@pytest.fixture(scope="module")
def scenes():
    """Drawn once, as the type checks of the tests make drawing slow."""
    return {
        split: [scene(split, i) for i in range(count)]
        for split, count in {"train": 1000, "test": 60}.items()
    }


def in_picture(record):
    """The objects of a record from its arrays alone: (colour, shape, x0, y0, x1, y1) in pixels."""
    image, segmentation = record["image"], record["segmentation"]
    found = []
    for box in record["boxes"][record["box_label"] >= 0]:
        x0, y0, x1, y1 = np.rint(box * len(image)).astype(int)
        inside = segmentation[y0:y1, x0:x1]
        rgb = {tuple(map(int, pixel)) for pixel in image[y0:y1, x0:x1][inside > 0]}
        classes = set(map(int, inside[inside > 0]))
        assert len(rgb) == len(classes) == 1
        colour = next(name for name, value in COLOURS.items() if value in rgb)
        found.append((colour, SHAPES[classes.pop() - 1], x0, y0, x1, y1))
    return found


def true_of(caption, found, size):
    """Reads the caption by its words, without the parser."""
    words = caption.replace(" at the ", " @ ").replace(" , with ", " | ")
    relation = next((r for r in ("above", "below", "left of", "right of") if r in words), None)
    words, _, position = words.partition(" @ ")
    phrases = words.replace(" , ", " | ").replace(" and ", " | ")
    if relation:
        phrases = phrases.replace(f" {relation} ", " | ")
    phrases = phrases.split(" | ")
    assert len(phrases) == len(found)
    for phrase, (colour, shape, x0, _, x1, _) in zip(phrases, found, strict=True):
        assert phrase.split()[-2:] == [colour, shape]
        if len(phrase.split()) == 4:
            assert phrase.split()[1] == ("large" if (x1 - x0) * 16 == 7 * size else "small")
    if relation:
        (_, _, ax0, ay0, ax1, ay1), (_, _, bx0, by0, bx1, by1) = found[:2]
        fact = {
            "above": ay1 <= by0,
            "below": ay0 >= by1,
            "left of": ax1 <= bx0,
            "right of": ax0 >= bx1,
        }
        assert fact[relation]
    if position:
        _, _, x0, y0, x1, y1 = found[0]
        margin = size / 16
        down, right = (y0 + y1) / 2 - size / 2, (x0 + x1) / 2 - size / 2
        assert down > margin if "bottom" in position else down < -margin
        assert right > margin if "right" in position else right < -margin


@pytest.mark.parametrize(("split", "size"), [("train", 16), ("test", 16), ("train", 48)])
def test_captions_are_true(split, size):
    source = shapes(split, size)
    for i in range(RECORDS[split]):
        record = source[i]
        true_of(record["caption"], in_picture(record), size)


def test_boxes_and_segmentation_match_the_pixels():
    source = shapes("train")
    for i in range(RECORDS["train"]):
        record = source[i]
        drawn = np.zeros((16, 16), bool)
        for colour, shape, x0, y0, x1, y1 in in_picture(record):
            inside = record["segmentation"][y0:y1, x0:x1] > 0
            # The box is tight: each of its sides is touched.
            assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            drawn[y0:y1, x0:x1] |= inside
            place = list(COLOURS).index(colour) * 3 + SHAPES.index(shape)
            assert place in record["box_label"]
        np.testing.assert_array_equal(drawn, record["segmentation"] > 0)
        np.testing.assert_array_equal(drawn, record["image"].any(-1))
        absent = record["box_label"] < 0
        assert not record["boxes"][absent].any() and not absent[0]


@pytest.mark.parametrize("size", [16, 32])
def test_objects_keep_apart_and_inside(size):
    for i in range(RECORDS["train"]):
        things, _ = scene("train", i, size=size)
        for thing in things:
            assert min(thing.box) >= 0 and max(thing.box) <= size
        for a, b in itertools.combinations(things, 2):
            gaps = (b.box[0] - a.box[2], a.box[0] - b.box[2])
            gaps += (b.box[1] - a.box[3], a.box[1] - b.box[3])
            assert max(gaps) >= size // 16


def test_counts_and_words_are_as_promised(scenes):
    described = [each.description for each in scenes["train"]]
    share = np.bincount([len(each.things) for each in described])[1:] / 1000
    np.testing.assert_allclose(share, [0.3, 0.5, 0.2], atol=0.04)
    several = [each for each in described if len(each.things) > 1]
    related = np.mean([each.relation is not None for each in several])
    assert abs(related - 0.75) < 0.05
    sizes = np.mean([thing.size is not None for each in described for thing in each.things])
    assert abs(sizes - 0.5) < 0.05
    vocabulary = {word for each in described for word in write_caption(each).split()}
    assert vocabulary == set(SHAPES_WORDS.vocabulary)


def test_three_large_objects_stand_in_many_places(scenes):
    crowded = {
        tuple(thing.box for thing in things)
        for things, _ in scenes["train"]
        if [thing.size for thing in things] == ["large"] * 3
    }
    assert len(crowded) > 12


def test_splits_share_no_caption(scenes):
    captions = {split: {each.caption for each in found} for split, found in scenes.items()}
    assert not captions["train"] & captions["test"]
    assert all(zlib.crc32(caption.encode()) % 10 == 0 for caption in captions["test"])
    assert all(zlib.crc32(caption.encode()) % 10 for caption in captions["train"])


def test_a_record_is_a_function_of_its_number():
    source = shapes("test", seed=3)
    forward = [source[i] for i in range(10)]
    with ThreadPoolExecutor(4) as pool:
        backward = list(pool.map(source.__getitem__, reversed(range(10))))
    for one, other in zip(forward, reversed(backward), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    others = [shapes("test", seed=4)[i]["caption"] for i in range(10)]
    assert [r["caption"] for r in forward] != others


def test_a_record_is_the_same_scene_at_every_size():
    small, large = shapes("train", 16), shapes("train", 32)
    for i in range(50):
        one, two = small[i], large[i]
        assert one["caption"] == two["caption"]
        np.testing.assert_array_equal(one["boxes"], two["boxes"])
        np.testing.assert_array_equal(one["box_label"], two["box_label"])
    square = Thing("red", "cube", "small", (2, 3, 7, 8))
    twice = square._replace(box=(4, 6, 14, 16))
    np.testing.assert_array_equal(
        render([twice], 32)[0], render([square], 16)[0].repeat(2, 0).repeat(2, 1)
    )


def test_shapes_differ_as_masks():
    for width in SIZES.values():
        masks = [
            render([Thing("red", shape, "small", (0, 0, width, width))], 16)[1] > 0
            for shape in SHAPES
        ]
        for a, b in itertools.combinations(masks, 2):
            assert (a & b).sum() / (a | b).sum() < 0.85
        cone = masks[2][:width, :width].sum(1)
        assert cone[0] == 1 and cone[-1] == width and (np.diff(cone) >= 0).all()


def test_is_a_source():
    source = shapes()
    assert isinstance(source, Source)
    assert (len(source), len(shapes("test")), source.classes) == (40_000, 2_000, None)
    assert source.image_shape == (16, 16, 3) and shapes(size=64).image_shape == (64, 64, 3)
    record = source[39_999]
    assert {key: getattr(value, "dtype", str) for key, value in record.items()} == {
        "image": np.uint8,
        "caption": str,
        "segmentation": np.uint8,
        "boxes": np.float32,
        "box_label": np.int32,
    }
    np.testing.assert_array_equal(source[-1]["image"], record["image"])
    with pytest.raises(IndexError):
        source[40_000]
    reader = batches(shapes(count=10), 4, seed=0)
    assert next(reader)["image"].shape == (4, 16, 16, 3)
    reader.close()


def test_parsing_is_the_inverse_of_writing(scenes):
    for each in scenes["train"][:300] + scenes["test"]:
        assert parse_caption(each.caption) == each.description


def test_every_form_of_caption():
    a, b, c = (
        Described("red", "cube"),
        Described("cyan", "cone", "large"),
        Described("blue", "ball"),
    )
    forms = {
        "a red cube": Description((a,)),
        "a large cyan cone at the bottom left": Description((b,), None, "bottom left"),
        "a red cube and a large cyan cone": Description((a, b)),
        "a red cube left of a large cyan cone": Description((a, b), "left of"),
        "a red cube , a large cyan cone and a blue ball": Description((a, b, c)),
        "a red cube below a blue ball , with a large cyan cone": Description((a, c, b), "below"),
    }
    for caption, description in forms.items():
        assert write_caption(description) == caption
        assert parse_caption(caption) == description
    assert parse_caption("a red cube, a  blue ball and a red cube").things == (a, c, a)


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("", "at the beginning comes 'a', not the end"),
        ("A red cube", "at the beginning comes 'a', not 'A'"),
        ("a purple cube", "after 'a' comes 'small', 'large', 'red', .* or 'cyan', not 'purple'"),
        ("a small cube", "after 'small' comes 'red', .* or 'cyan', not 'cube'"),
        ("a red sphere", "after 'red' comes 'cube', 'ball' or 'cone', not 'sphere'"),
        ("a red cube left a red ball", "after 'left' comes 'of', not 'a'"),
        ("a red cube under a red ball", "after 'cube' comes .* or the end, not 'under'"),
        ("a red cube at the middle", "after 'the' comes 'top' or 'bottom', not 'middle'"),
        ("a red cube and", "after 'and' comes 'a', not the end"),
        ("a red cube and a red cube and a red cube", "after 'cube' comes the end, not 'and'"),
        ("a red cube above a red cube , a red cube", "after ',' comes 'with', not 'a'"),
    ],
)
def test_a_caption_outside_the_grammar(caption, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_caption(caption)


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (Description(()), "1, 2 or 3 objects, not 0"),
        (Description((Described("red", "cube"),), "above"), "'above' relates two objects"),
        (Description((Described("red", "cube"),) * 2, None, "top left"), "said of one object"),
        (Description((Described("red", "cube"),) * 2, "under"), "a relation is .*not 'under'"),
        (Description((Described("red", "cube"),), None, "top"), "a position is .*not 'top'"),
        (Description((Described("pink", "cube"),)), "a colour is .*not 'pink'"),
        (Description((Described("red", "box"),)), "a shape is .*not 'box'"),
        (Description((Described("red", "cube", "big"),)), "a size is .*not 'big'"),
    ],
)
def test_a_description_that_no_caption_says(description, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_caption(description)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: shapes("val"), "'train' and 'test', not 'val'"),
        (lambda: shapes(size=24), "positive multiple of 16, not 24"),
        (lambda: shapes(size=0), "positive multiple of 16, not 0"),
        (lambda: shapes(count=0), "count must be at least 1, not 0"),
        (lambda: shapes(seed=-1), "seed must be at least 0, not -1"),
        (lambda: scene("train", -1), "at least 0, not -1"),
        (lambda: render([Thing("red", "cube", "small", (12, 0, 17, 5))], 16), "isn't a square in"),
        (lambda: render([Thing("red", "cube", "small", (0, 0, 5, 6))], 16), "isn't a square in"),
        (lambda: render([Thing("red", "box", "small", (0, 0, 5, 5))], 16), "not 'box'"),
        (lambda: render([Thing("pink", "cube", "small", (0, 0, 5, 5))], 16), "not 'pink'"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
