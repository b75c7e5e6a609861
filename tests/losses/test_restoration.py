"""Restoration losses: what they compare, and what they can't see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

SHAPE = (6, 4, 4, 1)
X0 = oracle.normal(0, *SHAPE)


def at(time):
    return lambda key, index, count: jnp.full(index.shape, time)


def loss_of(apply, process, **how):
    loss = dj.restoration_loss(apply, process, **how)
    return loss((), (), jax.random.key(0), {"image": X0})[0]


def identity(params, x, t, condition, *, key=None):
    return x


def test_nothing_is_lost_at_data_and_something_later():
    process = dj.Cold(dj.Pixelate(2))
    assert loss_of(identity, process, times=at(0.0)) == 0
    degraded = process.corrupt(X0, X0, jnp.ones(6))
    later = loss_of(identity, process, times=at(1.0))
    np.testing.assert_allclose(later, np.abs(degraded - X0).mean(), rtol=1e-5)


def test_what_the_corruption_hides_needs_no_guess():
    """Soft score matching: an error under the mask costs nothing, the same beside it does."""
    mask = dj.GaussianMask(steps=4, center=(0.0, 0.0))
    process = dj.Masked(dj.Rectified(), mask)
    t = jnp.full(6, 0.5)
    hidden = X0.at[:, 0, 0].add(5.0)
    shown = X0.at[:, 3, 3].add(5.0)
    assert np.all(dj.after_corruption(process, hidden, X0, t) == 0)
    assert np.max(dj.after_corruption(process, shown, X0, t)) > 1
    assert np.max(dj.absolute(process, hidden, X0, t)) > 4


def test_soft_blur_forgives_high_frequencies():
    process = dj.Spectral(dj.Rectified(), dj.SineBlur(4.0))
    x0 = process.encode(X0)
    t = jnp.full(6, 0.9)
    slow, fast = (dj.after_corruption(process, x0.at[:, k, k].add(1.0), x0, t) for k in (0, 3))
    assert slow.max() > 1e-3 and fast.max() < 1e-12


def test_soft_loss_of_a_spectral_process_is_after_its_corruption():
    """A network that errs by one wave pays for what the blur leaves of it."""
    process = dj.Spectral(dj.Rectified(), dj.SineBlur(2.0))

    def cost(k):
        wave = process.decode(jnp.zeros_like(X0).at[:, k, k].set(1.0))

        def network(params, x, t, condition, *, key=None):
            return X0 + wave

        return loss_of(network, process, distance=dj.after_corruption, times=at(0.4))

    alpha, _ = process.scales(jnp.full(6, 0.4), X0)
    for k in (0, 1, 2):
        np.testing.assert_allclose(cost(k), alpha[0, k, k, 0] ** 2 / 16, rtol=1e-3)


def test_the_soft_score_is_in_units_of_the_noise():
    process = dj.Spectral(dj.VE(0.05, 2.0), dj.SineBlur(2.0))
    t, sigma = jnp.full(6, 0.5), process.schedule.sigma(jnp.array(0.5))
    plain = dj.after_corruption(process, 0 * X0, X0, t)
    np.testing.assert_allclose(dj.SoftScore(0.0)(process, 0 * X0, X0, t) * sigma**2, plain, 1e-5)
    clean = dj.SoftScore(0.1)(process, 0 * X0, X0, jnp.zeros(6))
    np.testing.assert_allclose(clean, 100 * X0**2, rtol=1e-4)


def test_another_picture_needs_another():
    with pytest.raises(ValueError, match="at least 2 examples"):
        dj.another_picture(jax.random.key(0), jnp.arange(1), X0[:1])


def test_another_picture_is_never_ones_own():
    other = dj.another_picture(jax.random.key(0), jnp.arange(6), X0)
    assert np.all(np.abs(other - X0).max((1, 2, 3)) > 0)
    assert {p.tobytes() for p in np.asarray(other)} == {p.tobytes() for p in np.asarray(X0)}
    process = dj.Gaussian(dj.Cosine())
    value = loss_of(identity, process, noise=dj.another_picture, times=at(1.0))
    np.testing.assert_allclose(value, np.abs(other - X0).mean(), rtol=1e-5)
