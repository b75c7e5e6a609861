"""Denoisers: what wraps a network, and what wraps a denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import PARAMETERIZATIONS, Independent, name

PROCESS = dj.Gaussian(dj.Cosine())
DATA = Independent(np.array([1.0, -0.5, 0.0]), np.array([0.5, 1.0, 4.0]))
TIMES = jnp.array([0.1, 0.5, 0.9])


def points(scale=2.0):
    return scale * oracle.normal(0, 3, 3)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=name)
def test_every_parameterization_of_one_oracle_is_the_same_denoiser(parameterization):
    x = points()
    found = oracle.denoiser(DATA, PROCESS, parameterization)(x, TIMES)
    expected = DATA.posterior_mean(PROCESS, x, TIMES)
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-5)
    np.testing.assert_allclose(found.noise, expected.noise, atol=1e-5)
    np.testing.assert_allclose(PROCESS.corrupt(found.x0, found.noise, TIMES), x, atol=1e-5)


@pytest.mark.parametrize("data", [DATA, oracle.correlated(3)], ids=name)
def test_the_oracle_is_the_posterior_mean(data):
    """Tweedie: E[noise | x] = -sigma grad log q(x), for the density of x as seen by regression.

    Among 40,000 pairs the residual noise - E[noise | x] is uncorrelated with x and with 1.
    """
    count = 40_000
    key_data = jax.random.key(0)
    x0, noise = jax.jit(data.draw, static_argnums=1)(key_data, count), oracle.normal(1, count, 3)
    t = jnp.full(count, 0.6)
    x = PROCESS.corrupt(x0, noise, t)
    found = data.posterior_mean(PROCESS, x, t)
    x = (x - x.mean(0, keepdims=True)) / x.std(0, keepdims=True)
    for residual in (x0 - found.x0, noise - found.noise):
        residual = residual / residual.std(0, keepdims=True)
        assert jnp.abs(residual.mean(0)).max() < 5 / np.sqrt(count)
        assert jnp.abs(residual.T @ x).max() / count < 5 / np.sqrt(count)


def test_the_mixture_oracle_follows_the_score():
    """E[noise | x] = -sigma grad log q(x), with q the mixture's own density."""
    mixture = oracle.Mixture((0.3, 0.7), (DATA, Independent(-DATA.mean, DATA.variance / 4)))
    x = points()

    def log_q(x):
        densities = [
            jnp.log(w) + c.log_density(PROCESS, x, TIMES)
            for w, c in zip(mixture.weights, mixture.components, strict=True)
        ]
        return jax.nn.logsumexp(jnp.stack(densities), axis=0).sum()

    found = mixture.posterior_mean(PROCESS, x, TIMES)
    _, sigma = PROCESS.scales(TIMES, x)
    np.testing.assert_allclose(found.noise, -sigma * jax.grad(log_q)(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(PROCESS.corrupt(found.x0, found.noise, TIMES), x, atol=1e-5)


def test_the_network_works_on_pixels():
    """In other coordinates too it sees and answers pixels: decode before, encode after."""

    class Halved(dj.Gaussian):
        def encode(self, pixels):
            return pixels / 2

        def decode(self, x):
            return x * 2

    seen = []

    def network(pixels, t):
        seen.append(pixels)
        return jnp.full_like(pixels, 6.0)

    x = points()
    found = dj.denoiser_from(network, Halved(dj.Cosine()), dj.X0())(x, TIMES)
    np.testing.assert_array_equal(seen[0], 2 * x)
    np.testing.assert_allclose(found.x0, 3.0, rtol=1e-6)


def test_low_precision_networks_are_solved_in_the_precision_of_x():
    found = dj.denoiser_from(lambda x, t: x.astype(jnp.bfloat16), PROCESS, dj.V())(points(), TIMES)
    assert found.x0.dtype == found.noise.dtype == jnp.float32


def test_wrong_shape_of_the_answer_is_named():
    denoiser = dj.denoiser_from(lambda x, t: x[:, :2], PROCESS, dj.V())
    with pytest.raises(ValueError, match=r"shape \(3, 2\) to an x of shape \(3, 3\)"):
        denoiser(points(), TIMES)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.25, 0.5)])
def test_clip_is_consistent_and_clip_x0_only_is_not(low, high):
    x = points(4.0)
    denoiser = oracle.denoiser(DATA, PROCESS, dj.V())
    free = denoiser(x, TIMES)
    outside = (free.x0 < low) | (free.x0 > high)
    assert outside.any() and not outside.all()

    clipped = dj.clip(denoiser, PROCESS, low, high)(x, TIMES)
    stale = dj.clip_x0_only(denoiser, PROCESS, low, high)(x, TIMES)
    for found in (clipped, stale):
        assert found.x0.min() >= low and found.x0.max() <= high
        np.testing.assert_array_equal(found.x0[~outside], free.x0[~outside])
    explained = PROCESS.corrupt(clipped.x0, clipped.noise, TIMES)
    np.testing.assert_allclose(explained, x, atol=1e-5)
    np.testing.assert_array_equal(stale.noise, free.noise)
    explained = PROCESS.corrupt(stale.x0, stale.noise, TIMES)
    assert np.all(np.abs(explained - x)[outside] > 1e-3)


@pytest.mark.parametrize("wrap", [dj.clip, dj.clip_x0_only])
def test_clipping_keeps_the_learned_variance(wrap):
    def denoiser(x, t):
        return dj.Prediction(x, x, variance=0.5 * x)

    x = points()
    np.testing.assert_array_equal(wrap(denoiser, PROCESS)(x, TIMES).variance, 0.5 * x)


def test_precondition_scales_the_input_and_tells_another_time():
    def network(x, t):
        return jnp.concatenate([x, t[:, None]], axis=1)

    told = dj.precondition(network, input_scale=lambda t: 1 / (1 + t), network_time=jnp.log)
    x = points()
    answer = told(x, TIMES)
    np.testing.assert_allclose(answer[:, :3] * (1 + TIMES)[:, None], x, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(answer[:, 3]), TIMES, rtol=1e-6)


def test_table_time_counts_from_0():
    index = dj.table_time(1000)(jnp.array([1, 500, 1000]) / 1000)
    np.testing.assert_allclose(index, [0, 499, 999], atol=1e-3)
