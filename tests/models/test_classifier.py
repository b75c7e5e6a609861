"""The noise-aware classifier: the paper's sizes, and what its logits depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import (
    NoiseAwareClassifier,
    Sinusoidal,
    adm_classifier_64,
    digits_classifier,
    digits_unet,
    from_linen,
    with_time,
)
from diffusion_jax.types import Condition
from tests.oracle import normal

KEY = jax.random.key(0)
TINY = NoiseAwareClassifier(
    classes=3,
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(),
    head_channels=4,
    modulate=True,
    time_features=Sinusoidal(8),
)
X = normal(0, 4, 4, 4, 2)
T = jnp.array([0.0, 0.2, 0.7, 1.0])


def shapes(module, x, condition=Condition()):
    zeros = jnp.zeros((1, *x)), jnp.zeros(1)
    return jax.eval_shape(module.init, KEY, *zeros, condition)["params"]


def parameters(module, x):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(module, x)))


@functools.cache
def params():
    rng = np.random.default_rng(0)

    def draw(shape):
        fan = max(1, int(np.prod(shape.shape[:-1])))
        return (rng.normal(size=shape.shape) / np.sqrt(fan)).astype(shape.dtype)

    return jax.tree.map(draw, shapes(TINY, X.shape[1:]))


@jax.jit
def logits(x, t):
    return TINY.apply({"params": params()}, x, t)


@pytest.mark.parametrize(
    ("multipliers", "blocks", "size", "millions"),
    [((1, 2, 3, 4), 4, 64, 65), ((1, 1, 2, 3, 4), 2, 128, 43)],
)
def test_adm_has_the_papers_parameters(multipliers, blocks, size, millions):
    """65 M for 64x64 and 43 M for 128x128 pictures (Dhariwal & Nichol 2021, table 12)."""
    module = adm_classifier_64().clone(multipliers=multipliers, blocks=blocks)
    assert round(parameters(module, (size, size, 3)) / 1e6) == millions


def test_the_trunk_is_the_u_nets():
    """The same parameters by the same names, so that one can start from the other."""
    ours, unet = (shapes(m, (8, 8, 1)) for m in (digits_classifier(), digits_unet()))
    trunk = {name: leaf for name, leaf in ours.items() if name not in ("pool", "norm_out")}
    assert trunk == {name: unet[name] for name in trunk}
    assert {name.split("_")[0][:2] for name in unet.keys() - ours.keys()} == {"up", "co"}


def test_logits_are_float32_for_every_class():
    half = TINY.clone(dtype=jnp.bfloat16)
    run = jax.jit(lambda x, t: half.apply({"params": params()}, x, t))
    found = run(X, T)
    assert found.shape == (4, 3) and found.dtype == jnp.float32
    assert 0 < np.abs(found - logits(X, T)).max() < 0.1 * np.abs(logits(X, T)).max()


def test_picture_time_and_place_matter_to_their_own_example_only():
    before = logits(X, T)
    for x, t in ((X.at[0].add(1.0), T), (X, T.at[0].add(0.5)), (X.at[0].set(X[0, ::-1]), T)):
        after = logits(x, t)
        assert np.abs(after[0] - before[0]).max() > 1e-3
        np.testing.assert_array_equal(after[1:], before[1:])


def test_any_split_of_the_batch_gives_the_same_logits():
    parts = [logits(X[:1], T[:1]), logits(X[1:], T[1:])]
    np.testing.assert_allclose(np.concatenate(parts), logits(X, T), atol=1e-5)


def test_the_gradient_in_x_is_the_slope_also_at_both_ends():
    """Finite and right at t = 0 and t = 1: the change of log p along it, by finite differences."""

    def log_p(x):
        return jax.nn.log_softmax(logits(x, T))[:, 1]

    gradient = jax.jit(jax.grad(lambda x: log_p(x).sum()))(X)
    assert np.isfinite(gradient).all()
    norm = np.sqrt(np.square(gradient).sum((1, 2, 3)))
    assert norm.min() > 1e-2
    step = 1e-2 * gradient / norm[:, None, None, None]
    slope = (log_p(X + step) - log_p(X - step)) / 2e-2
    np.testing.assert_allclose(slope, norm, rtol=0.02)


def test_it_is_a_model_that_may_know_a_condition():
    """A condition is read as by the U-Net, and `with_time` tells it a table's time."""
    condition = Condition(image=normal(1, 4, 4, 4, 1), tokens=normal(2, 4, 2, 5))
    model = with_time(from_linen(TINY), lambda t: 1000 * t)
    like = jax.eval_shape(model.init, KEY, X, T, condition)
    assert like["conv_in"]["kernel"].shape[2] == 3 and "middle_attention_cross" in like
    assert jax.eval_shape(model.apply, like, X, T, condition).shape == (4, 3)


@pytest.mark.parametrize(
    ("size", "message"),
    [(6, r"learned 4 positions, and is given 9 \(3x3\)"), (5, "5x5 can't be halved 1 times")],
)
def test_pictures_of_another_size_are_refused(size, message):
    x = jnp.zeros((1, size, size, 2))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.apply, {"params": params()}, x, T[:1])
