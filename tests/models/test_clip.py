"""CLIP's towers: what they answer, what they read, what they refuse, and how large they are."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from diffusion_jax.models import (
    CLIP,
    CLIP_SIZES,
    Encoding,
    FrozenBatchNorm,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
    exact_gelu,
    published_clip,
    quick_gelu,
)
from tests.oracle import normal

KEY = jax.random.key(0)
END = 3
VISION = VisionTransformer(features=6, width=16, layers=3, heads=2, patch=4, image_size=12)
RESNET = ModifiedResNet(features=6, layers=(1, 2), width=8, heads=4, image_size=16)
TEXT = TextTransformer(features=6, vocabulary=11, length=7, width=16, layers=3, heads=2, end=END)
PIXELS = jnp.clip(normal(0, 2, 12, 12, 3), -1, 1)
TOKENS = jnp.array([[1, 5, 10, END, 0, 0, 0], [1, 0, END, 4, END, 9, 2]])


def drawn(module, *inputs, **kwargs):
    return jax.jit(lambda key: module.init(key, *inputs, **kwargs))(KEY)


def run(module, params, *inputs, method=None):
    """Compiled as one: op by op it takes ten times as long."""
    return jax.jit(lambda p, *x: module.apply(p, *x, method=method))(params, *inputs)


def answer(module, *inputs):
    return run(module, drawn(module, *inputs), *inputs)


@pytest.mark.parametrize(
    ("module", "inputs", "tokens", "penultimate"),
    [
        (VISION, PIXELS, (2, 10, 16), (2, 10, 16)),
        (VISION.clone(features=None), PIXELS, (2, 10, 16), (2, 10, 16)),
        (RESNET, jnp.clip(normal(1, 2, 16, 16, 3), -1, 1), (2, 4, 64), (2, 16, 32)),
        (TEXT, TOKENS, (2, 7, 16), (2, 7, 16)),
        (TEXT, TOKENS[:, :5], (2, 5, 16), (2, 5, 16)),
        (TEXT.clone(features=None), TOKENS, (2, 7, 16), (2, 7, 16)),
    ],
    ids=["vision", "vision_unprojected", "resnet", "text", "short", "text_unprojected"],
)
def test_what_a_tower_answers(module, inputs, tokens, penultimate):
    """Shapes, and an embedding that is `pooled` at length one, float32 in any dtype."""
    for dtype in (jnp.float32, jnp.bfloat16):
        y = answer(module.clone(dtype=dtype), inputs)
        assert {x.dtype for x in y} == {np.dtype(jnp.float32)}
        assert (y.tokens.shape, y.penultimate.shape) == (tokens, penultimate)
        assert y.embedding.shape == y.pooled.shape == (2, module.features or 16)
        np.testing.assert_allclose(jnp.linalg.norm(y.embedding, axis=-1), 1, atol=1e-6)
        length = jnp.linalg.norm(y.pooled, axis=-1, keepdims=True)
        np.testing.assert_allclose(y.embedding * length, y.pooled, atol=1e-5)
        assert all(float(x.std()) > 1e-3 for x in y)


@pytest.mark.parametrize("module", [VISION, TEXT], ids=["vision", "text"])
def test_bfloat16_differs_by_its_rounding(module):
    inputs = PIXELS if module is VISION else TOKENS
    params = drawn(module, inputs)
    exact, half = (
        run(module.clone(dtype=dtype), params, inputs) for dtype in (jnp.float32, jnp.bfloat16)
    )
    for a, b in zip(exact, half, strict=True):
        difference = float(jnp.abs(a - b).max() / jnp.abs(a).max())
        assert 1e-5 < difference < 0.05


def test_unprojected_towers_pool_their_tokens():
    y = answer(VISION.clone(features=None), PIXELS)
    np.testing.assert_array_equal(y.pooled, y.tokens[:, 0])
    y = answer(TEXT.clone(features=None), TOKENS)
    np.testing.assert_array_equal(y.pooled, y.tokens[jnp.arange(2), jnp.array([3, 2])])


@pytest.mark.parametrize(("module", "inputs"), [(VISION, PIXELS), (TEXT, TOKENS)])
def test_the_penultimate_is_what_the_last_layer_read(module, inputs):
    """So it is the last output, of the same parameters, of a tower that is one layer less."""
    params = drawn(module, inputs)
    whole = run(module, params, inputs)
    less = jax.tree.map(lambda x: x, params)
    less["params"]["blocks"] = jax.tree.map(lambda x: x[:2], params["params"]["blocks"])
    # Its last norm at identity would still normalise: compare what it normalises.
    y = run(module.clone(layers=2), less, inputs)
    h = whole.penultimate
    h = h - h.mean(-1, keepdims=True)
    h = h / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(h, y.tokens, atol=1e-5)


def test_a_later_token_changes_no_earlier_one():
    params = drawn(TEXT, TOKENS)
    call = jax.jit(TEXT.apply)
    before = call(params, TOKENS)
    for i in range(1, 7):
        after = call(params, TOKENS.at[:, i].set(8))
        for a, b in ((before.tokens, after.tokens), (before.penultimate, after.penultimate)):
            np.testing.assert_allclose(a[:, :i], b[:, :i], atol=1e-6)
            assert float(jnp.abs(a[:, i:] - b[:, i:]).max(-1).min()) > 1e-6


def test_a_text_is_pooled_where_it_first_ends():
    params = drawn(TEXT, TOKENS)
    y = run(TEXT, params, TOKENS)
    padded = TOKENS.at[0, 4:].set(9).at[1, 3:].set(7)
    np.testing.assert_allclose(run(TEXT, params, padded).pooled, y.pooled, atol=1e-6)
    cut = run(TEXT, params, TOKENS[:, :4])
    np.testing.assert_allclose(cut.pooled, y.pooled, atol=1e-6)
    endless = run(TEXT, params, TOKENS.at[0].set(5))
    assert np.isnan(endless.embedding[0]).all() and np.isfinite(endless.tokens).all()
    np.testing.assert_allclose(endless.embedding[1], y.embedding[1], atol=1e-6)


@pytest.mark.parametrize("wrong", [11, -1])
def test_an_id_outside_of_the_vocabulary_is_nan(wrong):
    y = run(TEXT, drawn(TEXT, TOKENS), TOKENS.at[0, 2].set(wrong))
    assert np.isnan(y.embedding[0]).all() and np.isfinite(y.embedding[1]).all()


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (TEXT, TOKENS.astype(jnp.float32), "integer ids .* float32"),
        (TEXT, TOKENS[0], r"integer ids .* \(7,\)"),
        (TEXT, jnp.zeros((2, 8), jnp.int32), "have 8 tokens; .* 1 to 7"),
        (TEXT, jnp.zeros((2, 0), jnp.int32), "have 0 tokens"),
        (TEXT.clone(end=11), TOKENS, "id 11, outside of a vocabulary of 11"),
        (TEXT.clone(heads=3), TOKENS, "width of 16 can't be cut into 3 heads"),
        (TEXT.clone(layers=0), TOKENS, "of 0 layers"),
        (VISION, jnp.zeros((2, 8, 8, 3)), r"\(2, 8, 8, 3\) .* \[b, 12, 12, c\]"),
        (VISION, jnp.zeros((12, 12, 3)), r"\(12, 12, 3\)"),
        (VISION, jnp.zeros((2, 12, 12, 1)), "pictures of 1 channels"),
        (VISION.clone(patch=5), PIXELS, "patches of 5 don't divide a size of 12"),
        (RESNET, PIXELS, r"\[b, 16, 16, c\]"),
        (RESNET.clone(image_size=12), PIXELS, "12 isn't a multiple of 8"),
        (RESNET.clone(image_size=16, heads=5), jnp.zeros((1, 16, 16, 3)), "64 channels .* 5 heads"),
    ],
)
def test_what_towers_refuse(module, inputs, message):
    try:
        jaxtyping.config.update("jaxtyping_disable", True)  # users have no type checker
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(module.init, KEY, inputs)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_pictures_are_normalised_by_mean_and_std():
    """A picture at the mean, in [0, 1], is zeros: the tokens don't depend on the patches."""
    params = drawn(VISION, PIXELS)
    mean = 2 * jnp.asarray(VISION.mean)[None, None, None, :] - 1
    at_mean = jnp.broadcast_to(mean, PIXELS.shape)
    y = run(VISION, params, at_mean)
    params["params"]["patches"]["kernel"] = 2 * params["params"]["patches"]["kernel"]
    np.testing.assert_allclose(run(VISION, params, at_mean).tokens, y.tokens, atol=1e-5)
    wider = VISION.clone(mean=(0.5,) * 3, std=(0.25,) * 3)
    narrow = VISION.clone(mean=(0.5,) * 3, std=(0.5,) * 3)
    a, b = run(wider, params, PIXELS / 2), run(narrow, params, PIXELS)
    np.testing.assert_allclose(a.tokens, b.tokens, atol=1e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize(("module", "inputs"), [(VISION, PIXELS), (TEXT, TOKENS)])
def test_rematerialisation_changes_no_gradient(module, inputs, remat):
    params = drawn(module, inputs)

    def gradient(module):
        return jax.jit(jax.grad(lambda p: module.apply(p, inputs).embedding[:, 0].sum()))(params)

    plain, again = gradient(module), gradient(module.clone(remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)


def test_examples_do_not_depend_on_each_other():
    """In training neither: the default norm has no statistics of the batch."""
    pixels = jnp.clip(normal(1, 3, 16, 16, 3), -1, 1)
    params = drawn(RESNET, pixels)
    whole, one = run(RESNET, params, pixels), run(RESNET, params, pixels[1:2])
    np.testing.assert_allclose(whole.embedding[1:2], one.embedding, atol=1e-5)


def test_a_residual_branch_starts_at_zero():
    pixels = jnp.clip(normal(1, 1, 16, 16, 3), -1, 1)
    for norm in (RESNET.norm, FrozenBatchNorm):
        params = drawn(RESNET.clone(norm=norm), pixels)["params"]
        assert not np.asarray(params["stage1_block1"]["norm3"]["scale"]).any()
        assert np.asarray(params["stage1_block1"]["norm2"]["scale"]).all()


def test_a_frozen_norm_uses_its_statistics_and_does_not_train_them():
    x = normal(0, 2, 3, 3, 4)
    stored = {
        "scale": normal(1, 4),
        "bias": normal(2, 4),
        "mean": normal(3, 4),
        "var": jnp.exp(normal(4, 4)),
    }

    def call(p):
        return FrozenBatchNorm(epsilon=1e-3).apply({"params": p}, x)

    at_mean = jnp.broadcast_to(stored["mean"][None, None, None], x.shape)
    y = FrozenBatchNorm().apply({"params": stored}, at_mean)
    expected = jnp.broadcast_to(stored["bias"][None, None, None], x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    gradient = jax.grad(lambda p: jnp.square(call(p)).sum())(stored)
    assert not gradient["mean"].any() and not gradient["var"].any()
    assert gradient["scale"].all() and gradient["bias"].all()


@pytest.mark.parametrize(("bias", "scale"), [(False, 1 / 0.07), (True, 10.0)])
def test_logits_of_pairs(bias, scale):
    clip = CLIP(VISION, TEXT, bias=bias)
    params = drawn(clip, PIXELS, TOKENS)
    assert params["params"].keys() == {"image", "text", "scale"} | ({"bias"} if bias else set())
    image, text, found = run(clip, params, PIXELS, TOKENS)
    np.testing.assert_allclose(found, scale, rtol=1e-6)
    for method, inputs, whole in (
        ("encode_image", PIXELS, image),
        ("encode_text", TOKENS, text),
    ):
        alone = run(clip, params, inputs, method=method)
        assert isinstance(alone, Encoding)
        for a, b in zip(alone, whole, strict=True):  # compiled apart
            np.testing.assert_allclose(a, b, atol=1e-5)
    logits = run(clip, params, image.embedding, text.embedding[:1], method="similarity")
    pairs = (image.embedding * text.embedding[:1]).sum(-1, keepdims=True)
    np.testing.assert_allclose(logits, scale * pairs - 10 * bias, atol=1e-5)


def test_the_scale_stops_at_100():
    clip = CLIP(VISION, TEXT)
    params = drawn(clip, PIXELS, TOKENS)
    params["params"]["scale"] = jnp.float32(9.0)
    np.testing.assert_allclose(run(clip, params, method="temperature"), 100, rtol=1e-6)


def test_a_scale_beyond_100_can_come_back_and_goes_no_further():
    clip = CLIP(VISION, TEXT)
    params = drawn(clip, PIXELS, TOKENS)

    def slope(s, sign):
        def of(s):
            changed = {"params": {**params["params"], "scale": s}}
            return sign * clip.apply(changed, method="temperature")

        return float(jax.grad(of)(jnp.float32(s)))

    assert slope(9.0, 1.0) > 0  # descending, s falls
    assert slope(9.0, -1.0) == 0
    np.testing.assert_allclose(
        [slope(2.0, a) for a in (1, -1)], [math.e**2, -(math.e**2)], rtol=1e-5
    )


def test_half_a_clip():
    clip = CLIP(None, TEXT)
    params = drawn(clip, TOKENS, method="encode_text")
    assert params["params"].keys() == {"text"}
    assert run(clip, params, TOKENS, method="encode_text").embedding.shape == (2, 6)
    with pytest.raises(ValueError, match="no image tower"):
        run(clip, params, PIXELS, method="encode_image")


def test_activations():
    x = jnp.linspace(-4, 4, 33)
    np.testing.assert_allclose(quick_gelu(x), x / (1 + jnp.exp(-1.702 * x)), atol=1e-6)
    phi = [0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(exact_gelu(x), x * jnp.asarray(phi), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("RN50", 102.01),
        ("RN101", 119.69),
        ("ViT-B/32", 151.28),
        ("ViT-B/16", 149.62),
        ("ViT-L/14", 427.62),
        ("ViT-L/14@336", 427.94),
        ("ViT-H/14", 986.11),
        ("ViT-bigG/14", 2539.57),
    ],
)
def test_published_sizes(name, published):
    clip, side = published_clip(name), CLIP_SIZES[name].image_size
    inputs = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 77), jnp.int32)
    params = jax.eval_shape(clip.init, KEY, *inputs)
    millions = sum(math.prod(x.shape) for x in jax.tree.leaves(params)) / 1e6
    np.testing.assert_allclose(millions, published, atol=0.005)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"'ViT-B/8'; there are RN50, .*ViT-B/32"):
        published_clip("ViT-B/8")
