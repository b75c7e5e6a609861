"""Cold degradations: nothing at t = 0, more with t, no randomness but the noise they are given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

DEGRADATIONS = (
    dj.GaussianBlur(dj.SineBlur(8.0)),
    dj.Masking(dj.GaussianMask(steps=10)),
    dj.Pixelate(2),
    dj.Snow(),
    dj.FixedNoise(),
)
every = pytest.mark.parametrize("degradation", DEGRADATIONS, ids=oracle.name)
SHAPE = (8, 4, 2)
TIMES = np.linspace(0, 1, 9, dtype=np.float32)


def pictures(seed, count):
    return jnp.tanh(oracle.normal(seed, count, *SHAPE))


@functools.cache
def walk(degradation, seed=0):
    """One picture at every time of TIMES, [9 h w c], and the picture."""
    x0 = pictures(0, 1)[0]
    noise = oracle.normal(seed, *SHAPE)
    both = (jnp.broadcast_to(v, (len(TIMES), *SHAPE)) for v in (x0, noise))
    return np.asarray(jax.jit(degradation)(*both, jnp.asarray(TIMES))), np.asarray(x0)


@every
def test_begins_exactly_at_the_picture_and_goes_on_without_jumps(degradation):
    x, x0 = walk(degradation)
    np.testing.assert_array_equal(x[0], x0)
    assert np.abs(x[-1] - x0).max() > 0.3
    t = jnp.array([0.2, 0.2001, 0.5, 0.5001, 0.99, 0.9901])
    near = degradation(*(jnp.broadcast_to(v(0, 1), (6, *SHAPE)) for v in (pictures, pictures)), t)
    assert np.abs(near[1::2] - near[::2]).max() < 0.01


@every
def test_randomness_is_the_noise(degradation):
    assert degradation.random == bool(np.any(walk(degradation)[0] != walk(degradation, 1)[0]))
    assert hash(degradation) == hash(type(degradation)(**vars(degradation)))


@every
def test_gradients_are_finite_up_to_the_ends(degradation):
    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(x0, t):
        return jnp.sum(jnp.sin(degradation(x0, pictures(1, 4), t)))

    for gradient in gradients(pictures(0, 4), jnp.array([0.0, 1e-6, 0.5, 1.0])):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("degradation", DEGRADATIONS[::2][:2], ids=oracle.name)
def test_blur_and_pixelation_keep_the_mean_colour(degradation):
    x, x0 = walk(degradation)
    np.testing.assert_allclose(x.mean((1, 2)), 0 * x.mean((1, 2)) + x0.mean((0, 1)), atol=1e-6)


def test_a_wide_blur_leaves_one_colour():
    x, x0 = walk(dj.GaussianBlur(dj.SineBlur(30.0)))
    np.testing.assert_allclose(x[-1], np.zeros(SHAPE) + x0.mean((0, 1)), atol=1e-5)


def test_pixelation_is_block_means_at_its_levels():
    x, x0 = walk(dj.Pixelate(2))
    blocks = x0.reshape(4, 2, 2, 2, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(x[4], blocks, atol=1e-6)
    assert len(np.unique(x[-1][..., 0].round(5))) == 2
    with pytest.raises(ValueError, match="8x4 can't be cut into blocks of 8x8"):
        dj.Pixelate(3)(pictures(0, 1), pictures(0, 1), jnp.ones(1))


def test_a_hole_grows_from_its_center():
    mask = dj.GaussianMask(steps=10, center=(0.0, 1.0))
    m = np.asarray(mask(jnp.asarray(TIMES), jnp.zeros((9, *SHAPE))))[..., 0]
    assert np.all(np.diff(m, axis=0) <= 0) and np.all((m >= 0) & (m <= 1))
    assert np.all(np.diff(m[1:, :, -1], axis=1) >= 0)
    assert m[1, 0, -1] == 0 and m[1, -1, 0] > 0.99


def test_it_snows_more_and_more():
    x, _ = walk(dj.Snow())
    assert np.all(np.diff(x, axis=0) >= 0) and x.max() <= 1
    assert 0.6 < (x[-1] == 1).mean() <= 1
