"""Layers against plain references, gradients included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import Fourier, Sinusoidal
from diffusion_jax.models.layers import (
    Dropout,
    GroupNorm,
    PooledDown,
    ResidualBlock,
    ResizeUp,
    StridedDown,
    average_pool,
    groups_for,
    nearest,
)
from tests.oracle import normal

KEY = jax.random.key(0)


def randomized(module, *inputs, seed=0):
    """Parameters of the module's shapes, none of them zero; nothing is compiled for it."""
    shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype), shapes)


def agree(ours, reference, *arguments, atol=1e-4):
    """Equal values, and equal gradients in every argument."""

    @jax.jit
    def both(arguments):
        def of(function):
            y, pull_back = jax.vjp(function, *arguments)
            return y, pull_back(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

        return of(ours), of(reference)

    a, b = both(arguments)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=atol), a, b)


@pytest.mark.parametrize(("channels", "groups", "used"), [(8, 4, 4), (12, 5, 4)])
def test_group_norm_is_flaxs(channels, groups, used):
    x = 3 * normal(0, 2, 4, 4, channels) + 1
    ours, flax = GroupNorm(groups), nn.GroupNorm(used, epsilon=1e-5)
    assert groups_for(channels, groups) == used
    agree(
        lambda p, x: ours.apply({"params": p}, x),
        lambda p, x: flax.apply({"params": p}, x),
        randomized(ours, x),
        x,
    )


def test_group_norm_is_stable_far_from_zero():
    """A mean 10,000 times the spread: the variance isn't the difference of two large sums."""
    x = normal(0, 2, 4, 4, 8)
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    far, near = (GroupNorm(4).apply({"params": params}, x + shift) for shift in (1e4, 0.0))
    np.testing.assert_allclose(far, near, atol=0.02)


def test_group_norm_is_modulated():
    """(1 + scale) norm(x) + shift, for each example."""
    x, scale, shift = normal(0, 2, 4, 4, 8), normal(1, 2, 8), normal(2, 2, 8)
    norm = GroupNorm(4)
    params = randomized(norm, x)
    plain = norm.apply({"params": params}, x)
    modulated = norm.apply({"params": params}, x, (scale, shift))
    for i in range(2):
        expected = plain[i] * (1 + scale[i])[None, None] + shift[i][None, None]
        np.testing.assert_allclose(modulated[i], expected, atol=1e-5)


def test_group_norm_keeps_half_precision_and_its_statistics_do_not():
    x = 100 + normal(0, 2, 8, 8, 8).astype(jnp.bfloat16)
    norm = GroupNorm(4)
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    half = norm.apply({"params": params}, x)
    assert half.dtype == jnp.bfloat16
    full = norm.apply({"params": params}, x.astype(jnp.float32))
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.02)


def test_resize_up_is_nearest_then_a_3x3_convolution():
    x, module = normal(0, 2, 3, 5, 4), ResizeUp(6)
    params = randomized(module, x, x)
    convolution = nn.Conv(6, (3, 3), padding=1)
    agree(
        lambda p, x: module.apply({"params": p}, x, x),
        lambda p, x: convolution.apply({"params": p}, nearest(x)),
        params,
        x,
    )


def test_nearest_and_average_pool():
    x = normal(0, 2, 2, 3, 4)
    doubled = nearest(x)
    assert doubled.shape == (2, 4, 6, 4)
    for row in (0, 1):
        for column in (0, 1):
            np.testing.assert_array_equal(doubled[:, row::2, column::2], x)
    np.testing.assert_allclose(average_pool(doubled), x, rtol=1e-6)
    np.testing.assert_allclose(average_pool(nearest(x) + 0).mean((1, 2)), x.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("kind", [StridedDown, PooledDown])
def test_down_halves(kind):
    x, module = normal(0, 2, 4, 6, 4), kind(5)
    assert jax.eval_shape(lambda: module.init_with_output(KEY, x, normal(1, 2, 3))[0]).shape == (
        2,
        2,
        3,
        5,
    )


def test_a_new_residual_block_adds_nothing():
    x = normal(0, 2, 2, 2, 4)
    y, _ = jax.jit(ResidualBlock(4).init_with_output)(KEY, x, normal(1, 2, 6))
    np.testing.assert_array_equal(y, x)


def dropped(x, key=KEY, rate=0.25):
    return Dropout(rate).apply({}, x, rngs={"dropout": key})


def test_dropout_keeps_the_mean_and_drops_at_its_rate():
    y = np.asarray(dropped(jnp.ones((8, 1000))))
    zero = y == 0
    assert abs(zero.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / y.size)
    np.testing.assert_allclose(y[~zero], 1 / 0.75, rtol=1e-6)


def test_dropout_belongs_to_the_example():
    """The same units in any batch, other units in other examples, other units for another key."""
    y = dropped(jnp.ones((8, 100)))
    np.testing.assert_array_equal(dropped(jnp.ones((3, 100))), y[:3])
    assert len({bytes(np.asarray(row)) for row in y}) == 8
    assert np.any(dropped(jnp.ones((8, 100)), jax.random.key(1)) != y)


def test_dropout_is_off_without_a_key_or_a_rate():
    x = normal(0, 2, 10)
    np.testing.assert_array_equal(Dropout(0.9).apply({}, x), x)
    np.testing.assert_array_equal(dropped(x, rate=0.0), x)


@pytest.mark.parametrize(
    "features", [Sinusoidal(16), Sinusoidal(16, shift=0), Fourier(16)], ids=repr
)
def test_time_features_lie_on_circles(features):
    t = jnp.array([0.0, 0.3, 1.0, 999.0])
    y = features(t)
    assert y.shape == (4, 16) and y.dtype == jnp.float32
    sine, cosine = jnp.split(y, 2, axis=1)
    np.testing.assert_allclose(sine**2 + cosine**2, 1.0, rtol=1e-5)
    np.testing.assert_allclose(y[0], [0.0] * 8 + [1.0] * 8, atol=1e-6)
    assert features(t.astype(jnp.bfloat16)).dtype == jnp.float32
    assert hash(features) == hash(features) and features == features


@pytest.mark.parametrize(("shift", "last"), [(1, 1e-4), (0, 1e-4 ** (7 / 8))])
def test_sinusoidal_frequencies_fall_from_1_in_equal_ratios(shift, last):
    """To 1/10,000 with shift 1 (DDPM); one ratio short of it without (ADM)."""
    t = 1e-3
    frequency = np.arcsin(np.asarray(Sinusoidal(16, shift=shift)(jnp.array([t])))[0, :8]) / t
    np.testing.assert_allclose(frequency[[0, -1]], [1.0, last], rtol=1e-4)
    ratios = frequency[1:] / frequency[:-1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


def test_fourier_frequencies_are_fixed_by_the_seed_and_scaled():
    t = jnp.array([1e-5])
    np.testing.assert_array_equal(Fourier(512)(t), Fourier(512)(t))
    assert np.any(Fourier(512)(t) != Fourier(512, seed=1)(t))
    frequency = np.arcsin(np.asarray(Fourier(512, scale=10.0)(t))[0, :256]) / (2 * np.pi * 1e-5)
    assert abs(frequency.std() - 10) < 5 * 10 / np.sqrt(2 * 256)
