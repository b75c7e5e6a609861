"""Conditionings: what they read, what null is, and that each example is dropped by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.data import SHAPES_WORDS, shapes
from diffusion_jax.models import (
    Attributes,
    ClassLabels,
    Edges,
    Grey,
    Inpainting,
    Joined,
    Layout,
    LowResolution,
    Segmentation,
    Text,
)
from diffusion_jax.models.image_conditioning import shrink, sobel
from diffusion_jax.types import Condition
from tests.oracle import normal

KEY = jax.random.key(0)
COUNT, SIZE = 40, 8
SHAPE = (COUNT, SIZE, SIZE, 3)
INDEX = jnp.arange(COUNT)
EVERY = (
    ClassLabels(5),
    Attributes(4),
    Text(SHAPES_WORDS),
    Layout(boxes=3, classes=18),
    Segmentation(4),
    Grey(),
    Edges(),
    Inpainting(),
    LowResolution(drop=0.1),
    Joined((ClassLabels(5), LowResolution(drop=0.1), Text(SHAPES_WORDS))),
)


def batch(count=COUNT, seed=0):
    """Random pictures and everything that may be known of them."""
    rng = np.random.default_rng(seed)
    captions = [shapes("train")[i]["caption"] for i in range(count)]
    return {
        "image": jnp.clip(normal(seed, count, SIZE, SIZE, 3), -1, 1),
        "label": jnp.asarray(rng.integers(0, 5, count), jnp.int32),
        "attributes": normal(seed + 1, count, 4),
        "tokens": jnp.asarray(np.stack([SHAPES_WORDS.encode(c) for c in captions])),
        "boxes": jnp.asarray(np.sort(rng.random((count, 3, 2, 2)), axis=2)).reshape(count, 3, 4),
        "box_label": jnp.asarray(rng.integers(-1, 18, (count, 3)), jnp.int32),
        "segmentation": jnp.asarray(rng.integers(0, 4, (count, SIZE, SIZE)), jnp.int32),
    }


BATCH = batch()


def known(conditioning):
    return conditioning.known(KEY, INDEX, BATCH)


def same(a, b) -> np.ndarray:
    """Which examples of two Conditions are equal, [b]."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.all([np.asarray(x == y).reshape(len(x), -1).all(1) for x, y in leaves], axis=0)


def name(conditioning):
    return type(conditioning).__name__


@pytest.mark.parametrize("conditioning", EVERY, ids=name)
def test_blank_has_the_shapes_of_what_is_known(conditioning):
    blank, told = conditioning.blank(SHAPE), known(conditioning)
    assert {k: np.shape(v) for k, v in blank.items()} == {k: np.shape(v) for k, v in told.items()}
    shapes_of = [jax.tree.map(jnp.shape, conditioning.condition(k)) for k in (blank, told)]
    assert shapes_of[0] == shapes_of[1]
    conditioning.check({k: np.asarray(v) for k, v in told.items()})


@pytest.mark.parametrize("conditioning", EVERY, ids=name)
def test_no_condition_is_null(conditioning):
    """A network can tell that it was told nothing, even of a grey picture or of zeros."""
    null = conditioning.null(known(conditioning))
    assert not same(conditioning.condition(known(conditioning)), null).any()
    if isinstance(conditioning, (Grey, Edges, Attributes, LowResolution)):
        zeros = conditioning.blank(SHAPE)
        assert not same(conditioning.condition(zeros), conditioning.null(zeros)).any()


@pytest.mark.parametrize("conditioning", EVERY[:-1], ids=name)
def test_training_drops_examples_by_themselves(conditioning):
    half = dataclasses.replace(conditioning, drop=0.5)
    told = half(KEY, INDEX, BATCH)
    null = half.null(half.known(KEY, INDEX, BATCH))
    dropped = same(told, null)
    assert 8 <= dropped.sum() <= 32
    part = jax.tree.map(lambda v: v[7:19], BATCH)
    again = half(KEY, INDEX[7:19], part)
    for whole, cut in zip(jax.tree.leaves(told), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(whole[7:19], cut, atol=1e-6)


def test_without_dropping_null_is_the_condition():
    """Guidance leaves alone what the network always saw: the small picture of a cascade."""
    both = Joined((ClassLabels(5, drop=0.1), LowResolution(drop=0.0)))
    told = both.known(KEY, INDEX, BATCH)
    condition, null = both.condition(told), both.null(told)
    np.testing.assert_array_equal(null.image, condition.image)
    np.testing.assert_array_equal(null.vector[:, 5:], condition.vector[:, 5:])
    np.testing.assert_array_equal(null.vector[:, :5], 0.0)


def test_joined_parts_drop_with_their_own_probabilities():
    both = Joined((ClassLabels(5, drop=0.1), Text(SHAPES_WORDS, drop=0.5)))
    count = 2000
    many = {"label": jnp.zeros(count, jnp.int32), "tokens": jnp.full((count, 18), 5)}
    told = both(KEY, jnp.arange(count), {"image": jnp.zeros((count, 1, 1, 1)), **many})
    label, text = (np.asarray(v) for v in (told.vector[:, 0] == 0, told.tokens[:, 0] != 5))
    for dropped, rate in ((label, 0.1), (text, 0.5), (label & text, 0.05)):
        assert abs(dropped.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
    np.testing.assert_array_equal(told.mask.sum(1), np.where(text, 2, 18))


def test_joined_parts_drop_together():
    count, both = 2000, Joined((ClassLabels(5, drop=0.1), Text(SHAPES_WORDS, drop=0.1)), 0.3)
    many = {"label": jnp.zeros(count, jnp.int32), "tokens": jnp.full((count, 18), 5)}
    told = both(KEY, jnp.arange(count), {"image": jnp.zeros((count, 1, 1, 1)), **many})
    label, text = (np.asarray(v) for v in (told.vector[:, 0] == 0, told.tokens[:, 0] != 5))
    for dropped, rate in ((label & text, 0.3 + 0.7 * 0.01), (label & ~text, 0.7 * 0.09)):
        assert abs(dropped.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
    assert both.drop == 0.3


def test_only_one_part_may_have_tokens():
    both = Joined((Text(SHAPES_WORDS), Layout(3, 18)))
    with pytest.raises(ValueError, match="at most one"):
        both.condition(both.blank(SHAPE))


def test_layout_is_corners_and_labels():
    told = {"boxes": jnp.array([[[0.1, 0.2, 0.3, 0.4]] * 2]), "box_label": jnp.array([[2, -1]])}
    condition = Layout(2, 3).condition(told)
    np.testing.assert_allclose(condition.tokens[0, 0], [0.1, 0.2, 0.3, 0.4, 0, 0, 1])
    np.testing.assert_array_equal(condition.mask, [[True, False]])
    rounded = Layout(2, 3, grid=4).condition(told)
    np.testing.assert_allclose(rounded.tokens[0, 0, :4], [0.0, 0.25, 0.25, 0.5])


def test_holes_are_boxes_of_every_size_and_place():
    masks = Inpainting(least=0.25, most=0.75).masks(KEY, jnp.arange(400), (8, 8))
    holes = 1 - np.asarray(masks)[..., 0]
    rows, columns = holes.any(2), holes.any(1)
    np.testing.assert_array_equal(holes, rows[:, :, None] & columns[:, None, :])
    for spans in (rows, columns):
        assert set(spans.sum(1)) == {2, 3, 4, 5, 6}
        assert spans.mean(0).min() > 0.15  # every pixel is in the hole often enough


def test_a_hole_hides_its_pixels():
    conditioning = Inpainting()
    told = known(conditioning)
    other = {**told, "image": told["image"] + 9.0 * (1 - told["mask"])}
    assert same(conditioning.condition(told), conditioning.condition(other)).all()


def test_small_pictures_are_means_and_noise_has_the_level_that_is_told():
    x = batch(1)["image"]
    np.testing.assert_allclose(shrink(x, 2)[0, 1, 2], x[0, 2:4, 4:6].mean((0, 1)), atol=1e-6)
    conditioning = LowResolution(2, noise=0.8)
    flat = {"image": jnp.full((400, 16, 16, 3), 0.5)}
    told = conditioning.known(KEY, jnp.arange(400), flat)
    spread = np.asarray(told["low"]).reshape(400, -1).std(1)
    np.testing.assert_allclose(spread, told["level"], atol=0.15)
    assert 0.35 < np.asarray(told["level"]).mean() < 0.45
    condition = conditioning.condition({"low": told["low"]})
    assert condition.image.shape == (400, 16, 16, 3)
    np.testing.assert_array_equal(condition.vector, [[0.0, 1.0]] * 400)
    with pytest.raises(ValueError, match="can't be shrunk 3 times"):
        shrink(x, 3)


def test_edges_are_where_the_picture_changes():
    step = jnp.where(jnp.arange(8) < 4, -1.0, 1.0)
    picture = jnp.broadcast_to(step[None, None, :, None], (1, 8, 8, 1))
    across, down = (np.asarray(sobel(p))[0, ..., 0] for p in (picture, picture.swapaxes(1, 2)))
    np.testing.assert_allclose(across, np.broadcast_to([0, 0, 0, 1, 1, 0, 0, 0], (8, 8)), atol=1e-6)
    np.testing.assert_array_equal(across.T, down)
    slope = jax.grad(lambda p: sobel(p).sum())(jnp.zeros((1, 4, 4, 1)))
    assert np.all(np.isfinite(slope))


def boxed(*corners, label=0):
    return {"boxes": np.array([[corners]]), "box_label": np.array([[label]])}


def holed(mask):
    return {"image": np.ones((2, 4, 4, 1)), "mask": mask}


@pytest.mark.parametrize(
    "conditioning, told, message",
    [
        (ClassLabels(5), {"label": np.array([5])}, r"label 5 is out of range.*0\.\.4"),
        (ClassLabels(0), {"label": np.array([0])}, "knows no labels"),
        (Segmentation(4), {"segmentation": np.full((1, 2, 2), 9)}, r"class 9.*0\.\.3"),
        (Joined((Segmentation(4),)), {"segmentation": np.full((1, 2, 2), 9)}, "class 9"),
        (Segmentation(4), {"segmentation": np.ones((1, 2, 2))}, r"it must be integers, \[b h w\]"),
        (ClassLabels(5), {"label": np.ones(2)}, r"float64 of shape \(2,\); it must be integers"),
        (ClassLabels(5), {}, "has to be told 'label' of every picture"),
        (Attributes(3), {"attributes": np.ones((2, 4))}, r"must be real numbers, \[b 3\]"),
        (Attributes(1), {"attributes": np.full((2, 1), np.nan)}, "must be finite"),
        (
            Text(SHAPES_WORDS),
            {"tokens": np.full((1, 18), 99)},
            r"token 99 is out of range",
        ),
        (Text(SHAPES_WORDS), {"tokens": np.ones((1, 5), int)}, r"integers, \[b 18\]"),
        (Layout(1, 2), boxed(0.1, 0.1, 0.5, 0.5, label=2), r"box_label 2 is out of range.*0\.\.1"),
        (Layout(1, 2), boxed(0.5, 0.1, 0.1, 0.5), "box 0.5 0.1 0.1 0.5 must have 0 <= X0 < X1"),
        (Layout(1, 2), boxed(0.1, 0.1, 0.5, np.nan), "0 <= Y0 < Y1 <= 1"),
        (Layout(1, 2, grid=16), boxed(0.1, 0.1, 0.11, 0.9), "<= 1, on a grid of 1/16"),
        (Layout(2, 2), boxed(0.1, 0.1, 0.5, 0.5), r"must be integers, \[b 2\]"),
        (LowResolution(), {"low": np.ones((2, 4, 4))}, r"real numbers, \[b h w c\]"),
        (LowResolution(), {"low": np.ones((2, 4, 4, 1)), "level": np.full(2, 2.0)}, "level is 2"),
        (Inpainting(), {"image": np.ones((2, 4, 4, 1))}, "has to be told 'mask'"),
        (Inpainting(), holed(np.ones((2, 4, 4))), r"mask is .*\[2 4 4 1\]"),
        (
            Inpainting(),
            holed(np.full((2, 4, 4, 1), 255.0)),
            "the mask is 255; it must be",
        ),
        (Grey(), {}, "has to be told 'image'"),
    ],
    ids=str,
)
def test_what_the_network_was_not_made_for_is_refused(conditioning, told, message):
    with pytest.raises(ValueError, match=message):
        conditioning.check(told)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LowResolution(factor=0), "factor = 0 and noise = 0.5; the factor is at least 1"),
        (lambda: LowResolution(noise=2.0), "factor = 2 and noise = 2.0"),
        (lambda: Inpainting(0.9, 0.1), "from least = 0.9 to most = 0.1"),
        (lambda: Joined(()), "Joined has no parts"),
    ],
)
def test_parts_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_classes_is_no_condition():
    nothing = ClassLabels(0)
    assert nothing(KEY, INDEX, BATCH) == nothing.condition({}) == nothing.null({}) == Condition()
    assert nothing.features == ()
