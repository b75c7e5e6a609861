"""Encoders of words and boxes: padding is nothing, the order of words is something."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import (
    Encoded,
    LayoutEncoder,
    Located,
    Sinusoidal,
    TextEncoder,
    UNet,
    from_linen,
)
from diffusion_jax.types import Condition
from tests.oracle import normal

KEY = jax.random.key(0)
WORDS = TextEncoder(vocabulary=10, width=8, layers=1, heads=2, length=6)
BOXES = LayoutEncoder(classes=3, width=8, frequencies=2, layers=1, heads=2)
TEXT = Condition(
    tokens=jnp.array([[1, 4, 2, 5], [1, 7, 0, 0]]),
    mask=jnp.array([[True, True, True, True], [True, True, False, False]]),
)


def boxes(seed, *shape):
    corners = jax.nn.sigmoid(normal(seed, *shape, 4))
    return jnp.concatenate([corners, jax.nn.one_hot(jnp.arange(shape[-1]) % 3, 3)[None]], axis=-1)


LAYOUT = Condition(tokens=boxes(0, 1, 4), mask=jnp.array([[True, True, True, False]]))


def randomized(init, *inputs):
    """Parameters of these shapes, none of them zero; nothing is compiled for it."""
    shapes = jax.eval_shape(init, KEY, *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape) / np.sqrt((*s.shape, 1)[0]), s.dtype), shapes
    )


@functools.cache
def encode(module):
    """condition -> condition, compiled once."""
    raw = TEXT if isinstance(module, TextEncoder) else LAYOUT
    return jax.jit(functools.partial(module.apply, randomized(module.init, raw)))


def gap(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def padded(raw, count, value):
    """More tokens that aren't real, and another value in those that already were there."""
    b, n = raw.mask.shape
    real = raw.mask.reshape(b, n, *[1] * (raw.tokens.ndim - 2))
    tokens = jnp.where(real, raw.tokens, value)
    more = jnp.full((b, count, *raw.tokens.shape[2:]), value, raw.tokens.dtype)
    return raw._replace(
        tokens=jnp.concatenate([tokens, more], axis=1),
        mask=jnp.concatenate([raw.mask, jnp.zeros((b, count), bool)], axis=1),
    )


@pytest.mark.parametrize("module, raw", [(WORDS, TEXT), (BOXES, LAYOUT)], ids=["text", "layout"])
def test_padding_changes_nothing(module, raw):
    few, many = encode(module)(raw), encode(module)(padded(raw, 2, 9))
    np.testing.assert_allclose(many.vector, few.vector, atol=1e-5)
    np.testing.assert_allclose(many.tokens[many.mask], few.tokens[few.mask], atol=1e-5)


@pytest.mark.parametrize("module, raw", [(WORDS, TEXT), (BOXES, LAYOUT)], ids=["text", "layout"])
def test_without_a_mask_all_are_real(module, raw):
    everything = encode(module)(raw._replace(mask=jnp.ones_like(raw.mask)))
    assert jax.tree.all(
        jax.tree.map(np.array_equal, encode(module)(raw._replace(mask=None)), everything)
    )
    assert gap(encode(module)(raw).vector, everything.vector) > 1e-3


@pytest.mark.parametrize("module, raw", [(WORDS, TEXT), (BOXES, LAYOUT)], ids=["text", "layout"])
def test_a_vector_is_joined_and_an_image_passed(module, raw):
    b = raw.tokens.shape[0]
    known = raw._replace(vector=normal(1, b, 3), image=normal(2, b, 2, 2, 1))
    found, alone = encode(module)(known), encode(module)(raw)
    np.testing.assert_array_equal(found.image, known.image)
    np.testing.assert_array_equal(found.vector[:, 8:], known.vector)
    np.testing.assert_allclose(found.vector[:, :8], alone.vector, atol=1e-6)


@pytest.mark.parametrize("module, raw", [(WORDS, TEXT), (BOXES, LAYOUT)], ids=["text", "layout"])
def test_half_precision_computes_in_half_and_answers_in_float32(module, raw):
    full, half = (encode(m)(raw) for m in (module, module.clone(dtype=jnp.bfloat16)))
    assert half.tokens.dtype == half.vector.dtype == jnp.float32
    assert 1e-4 < gap(half.vector, full.vector) < 0.1


def test_text_is_features_of_every_word():
    found = encode(WORDS)(TEXT)
    assert found.tokens.shape == (2, 4, 8)
    np.testing.assert_array_equal(found.mask, TEXT.mask)
    np.testing.assert_array_equal(found.vector, found.tokens[:, 0])


def test_every_word_and_their_order_reach_the_pooled_vector():
    before = encode(WORDS)(TEXT).vector
    for i in range(4):
        other = encode(WORDS)(TEXT._replace(tokens=TEXT.tokens.at[0, i].set(8)))
        assert gap(other.vector[0], before[0]) > 1e-3
        np.testing.assert_array_equal(other.vector[1], before[1])
    swapped = TEXT._replace(tokens=TEXT.tokens[:, jnp.array([0, 2, 1, 3])])
    assert gap(encode(WORDS)(swapped).vector[0], before[0]) > 1e-3


def test_a_word_knows_its_neighbours_before_any_layer():
    near = encode(WORDS.clone(layers=0, neighbours=1))
    before = near(TEXT).tokens[0]
    after = near(TEXT._replace(tokens=TEXT.tokens.at[0, 3].set(8))).tokens[0]
    np.testing.assert_array_equal(after[:2], before[:2])
    assert gap(after[2], before[2]) > 1e-3 and gap(after[3], before[3]) > 1e-3


def test_a_text_without_a_real_token_is_its_begin():
    empty = TEXT._replace(mask=jnp.zeros_like(TEXT.mask))
    begin = Condition(tokens=TEXT.tokens[:, :1])
    found = encode(WORDS)(empty)
    np.testing.assert_allclose(found.vector, encode(WORDS)(begin).vector, atol=1e-5)
    np.testing.assert_array_equal(found.mask.sum(1), 1)


def test_an_unknown_word_is_not_a_number():
    assert np.isnan(encode(WORDS)(TEXT._replace(tokens=TEXT.tokens + 9)).vector).all()


def test_the_order_of_boxes_does_not_matter():
    order = jnp.array([2, 3, 0, 1])
    shuffled = Condition(tokens=LAYOUT.tokens[:, order], mask=LAYOUT.mask[:, order])
    before, after = encode(BOXES)(LAYOUT), encode(BOXES)(shuffled)
    assert before.tokens.shape == (1, 5, 8) and before.mask.shape == (1, 5)
    np.testing.assert_allclose(after.vector, before.vector, atol=1e-5)
    np.testing.assert_allclose(after.tokens[:, :4], before.tokens[:, order], atol=1e-5)
    np.testing.assert_array_equal(after.mask[:, :4], before.mask[:, order])


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4], ids=["x0", "y0", "x1", "y1", "label"])
def test_every_part_of_a_box_matters(place):
    other = LAYOUT._replace(tokens=LAYOUT.tokens.at[0, 1, place].add(0.5))
    before, after = encode(BOXES)(LAYOUT), encode(BOXES)(other)
    assert gap(after.tokens[0, 1], before.tokens[0, 1]) > 1e-3
    assert gap(after.tokens[0, 0], before.tokens[0, 0]) > 1e-4  # boxes know each other


def test_without_layers_boxes_do_not_know_each_other():
    module = BOXES.clone(layers=0)
    other = LAYOUT._replace(tokens=LAYOUT.tokens.at[0, 1, 0].add(0.5))
    before, after = encode(module)(LAYOUT), encode(module)(other)
    np.testing.assert_array_equal(after.tokens[0, 0], before.tokens[0, 0])
    assert gap(after.tokens[0, 1], before.tokens[0, 1]) > 1e-3


@pytest.mark.parametrize("count", [0, 4])
def test_a_layout_without_boxes_is_the_learned_token(count):
    """Whether no box is given or none is real, for any number of layers."""
    raw = Condition(tokens=boxes(1, 1, 4)[:, :count], mask=jnp.zeros((1, count), bool))
    other = Condition(tokens=boxes(2, 1, 4), mask=jnp.zeros((1, 4), bool))
    found, expected = encode(BOXES)(raw), encode(BOXES)(other)
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-5)
    np.testing.assert_allclose(found.vector, found.tokens[:, -1], atol=1e-5)
    assert found.mask[0, -1] and found.mask.sum() == 1


@pytest.mark.parametrize(
    ("module", "condition", "message"),
    [
        (WORDS, Condition(), "TextEncoder reads condition.tokens, and the condition has none"),
        (BOXES, Condition(), "LayoutEncoder reads condition.tokens, and the condition has none"),
        (WORDS, Condition(tokens=jnp.zeros((2, 7), int)), "texts have 7 tokens; .* 1 to 6"),
        (WORDS, Condition(tokens=jnp.zeros((2, 0), int)), "texts have 0 tokens; .* 1 to 6"),
        (WORDS, Condition(tokens=jnp.zeros((2, 3))), r"integer ids \[b n\], .* float32 of shape"),
        (WORDS, TEXT._replace(mask=TEXT.mask[:, :2]), r"mask has shape \(2, 2\) and .* \(2, 4\)"),
        (BOXES, Condition(tokens=jnp.zeros((2, 3, 5))), r"boxes \[b n 7\], .* shape \(2, 3, 5\)"),
        (WORDS.clone(heads=3), TEXT, "width of 8 can't be cut into 3 heads"),
    ],
)
def test_raw_conditions_that_do_not_fit_are_refused(module, condition, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, KEY, condition)


class Reader(nn.Module):
    """Answers what it was told, times a parameter."""

    @nn.compact
    def __call__(self, x, t, condition):
        return self.param("gain", nn.initializers.ones, ()) * condition.vector


def test_an_encoder_trains_with_its_network():
    model = from_linen(Encoded(WORDS, Reader()))
    x, t = normal(3, 2, 4), jnp.array([0.2, 0.7])
    params = randomized(model.init, x, t, TEXT)
    assert set(params) == {"encoder", "network"}

    @jax.jit
    def both(params):
        def value(params):
            y = model.apply(params, x, t, TEXT)
            return jnp.sum(jnp.cos(jnp.arange(8.0))[None] * y), y

        (_, y), gradient = jax.value_and_grad(value, has_aux=True)(params)
        return y, gradient, WORDS.apply({"params": params["encoder"]}, TEXT)

    y, gradient, encoded = both(params)
    gain = params["network"]["gain"]
    np.testing.assert_allclose(y, gain * encoded.vector, rtol=1e-5, atol=1e-6)
    used = np.abs(gradient["encoder"]["words"]).max(1) > 0
    assert used[1] and np.isfinite(gradient["encoder"]["words"]).all()
    assert gradient["network"]["gain"] != 0


def test_a_u_net_reads_what_is_encoded():
    network = UNet(1, 8, (1,), 1, (2,), modulate=True, time_features=Sinusoidal(8))
    model = from_linen(Encoded(BOXES.clone(layers=2), network))
    x, t = normal(4, 1, 2, 2, 1), jnp.ones(1)
    shapes = jax.eval_shape(model.init, KEY, x, t, LAYOUT)
    assert "down0_attention0_cross" in shapes["network"] and "vector" in shapes["network"]
    assert {"block0", "block1"} < set(shapes["encoder"])
    assert jax.eval_shape(model.apply, shapes, x, t, LAYOUT).shape == x.shape


def test_located_tells_every_pixel_its_place():
    seen = []

    class Spy(nn.Module):
        def __call__(self, x, t, condition):
            seen.append(condition.image)
            return x

    x = jnp.zeros((2, 3, 5, 1))
    Located(Spy()).apply({}, x, jnp.zeros(2))
    Located(Spy()).apply({}, x, jnp.zeros(2), Condition(image=jnp.full((2, 3, 5, 1), 7.0)))
    alone, joined = seen
    np.testing.assert_array_equal(alone[1, :, 0, 0], [-1, 0, 1])
    np.testing.assert_array_equal(alone[1, 0, :, 1], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(joined[..., 0], 7.0)
    np.testing.assert_array_equal(joined[..., 1:], alone)
