"""The Gaussian process: laws that compose, Bayes' rule, and the 2x2 solve up to both ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import PARAMETERIZATIONS, SCHEDULES, name

every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name)

# Both ends, next to both, and in between.
TIMES = np.array([0.0, 1e-6, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-3, 1 - 1e-6, 1.0])
# Pairs s <= t, with every kind of end.
PAIRS = np.array([(0.0, 0.3), (0.0, 1.0), (0.2, 0.5), (0.4, 0.4), (0.7, 1.0), (0.5, 0.501)])


def example(count, seed=0):
    x0, noise = np.random.default_rng(seed).normal(size=(2, count, 3))
    return jnp.asarray(x0), jnp.asarray(noise)


def pairs():
    return jnp.asarray(PAIRS[:, 0]), jnp.asarray(PAIRS[:, 1])


def test_pixels_are_the_coordinates():
    process = dj.Gaussian(dj.Cosine())
    x, _ = example(2)
    np.testing.assert_array_equal(process.encode(x), x)
    np.testing.assert_array_equal(process.decode(x), x)


@every
def test_each_example_is_corrupted_by_its_own_time(schedule):
    process = dj.Gaussian(schedule)
    t = jnp.asarray([0.0, 0.3, 0.8])
    x0, noise = example(3)
    x = process.corrupt(x0, noise, t)
    np.testing.assert_array_equal(x[0], x0[0])
    for i in range(3):
        expected = schedule.alpha(t[i]) * x0[i] + schedule.sigma(t[i]) * noise[i]
        np.testing.assert_allclose(x[i], expected, rtol=1e-6)
    assert all(s.shape == (3, 1, 1, 1) for s in process.scales(t, jnp.ones((3, 8, 8, 1))))


@every
def test_transition_composes(x64, schedule):
    """corrupt to s, then the transition to t, has the law of corrupt to t."""
    process = dj.Gaussian(schedule)
    s, t = pairs()
    x, _ = example(len(PAIRS))
    r, v = dj.transition(process, s, t, x)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.scales(s, x), process.scales(t, x)
    assert r.shape == v.shape == alpha_s.shape
    np.testing.assert_allclose(r * alpha_s, alpha_t, atol=1e-15)
    np.testing.assert_allclose(r**2 * sigma_s**2 + v, sigma_t**2, atol=1e-15)
    assert np.all(v >= 0)


@pytest.mark.parametrize("schedule", [dj.LinearBeta(), dj.Rectified()], ids=name)
def test_transition_from_data_is_the_marginal_and_to_itself_nothing(schedule):
    process = dj.Gaussian(schedule)
    t = jnp.asarray([0.2, 0.9, 1.0])
    x, _ = example(3)
    r, v = dj.transition(process, jnp.zeros(3), t, x)
    alpha, sigma = process.scales(t, x)
    np.testing.assert_allclose(r, alpha, rtol=1e-6)
    np.testing.assert_allclose(v, sigma**2, rtol=1e-6)
    r, v = dj.transition(process, t[:2], t[:2], x[:2])
    np.testing.assert_allclose(r, 1.0, rtol=1e-6)
    np.testing.assert_allclose(v, 0.0, atol=1e-6)


@every
def test_posterior_is_bayes_rule(x64, schedule):
    """q(x_s | x_t, x0) ~ q(x_t | x_s) q(x_s | x0), normalised on a fine grid of x_s."""
    process = dj.Gaussian(schedule)
    inside = PAIRS[(PAIRS[:, 0] > 0) & (PAIRS[:, 0] < PAIRS[:, 1])]
    s, t = jnp.asarray(inside[:, 0]), jnp.asarray(inside[:, 1])
    x0, x = (v[:, :1] for v in example(len(inside)))
    mean, variance = (np.asarray(m)[:, 0] for m in dj.posterior(process, x, x0, t, s))

    r, v = dj.transition(process, s, t, x)
    alpha_s, sigma_s = process.scales(s, x)
    width = np.sqrt(variance)[:, None]
    grid = mean[:, None] + width * np.linspace(-12, 12, 4001)[None, :]
    log_density = -((np.asarray(x) - r * grid) ** 2) / (2 * v)
    log_density -= (grid - np.asarray(alpha_s * x0)) ** 2 / (2 * sigma_s**2)
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    density /= density.sum(1, keepdims=True)
    grid_mean = (density * grid).sum(1)
    grid_variance = (density * (grid - grid_mean[:, None]) ** 2).sum(1)
    np.testing.assert_allclose(mean, grid_mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(variance, grid_variance, rtol=1e-6)


@every
def test_posterior_averaged_over_the_end_is_the_marginal(x64, schedule):
    """Over x_t ~ q(x_t | x0), the posterior's mixture has mean alpha_s x0 and sigma_s^2."""
    process = dj.Gaussian(schedule)
    s, t = pairs()
    x0, noise = example(len(PAIRS))
    x = process.corrupt(x0, noise, t)

    def mean(x):
        return dj.posterior(process, x, x0, t, s)[0]

    center = mean(process.corrupt(x0, jnp.zeros_like(noise), t))
    _, variance = dj.posterior(process, x, x0, t, s)
    alpha_s, sigma_s = process.scales(s, x)
    np.testing.assert_allclose(center, alpha_s * x0, atol=1e-12)
    slope = (mean(x) - center) / noise  # the mean is affine in noise
    np.testing.assert_allclose(slope**2 + variance, sigma_s**2 + 0 * x, atol=1e-12)


@every
def test_posterior_at_data_is_x0(schedule):
    process = dj.Gaussian(schedule)
    x0, x = example(3)
    mean, variance = dj.posterior(process, x, x0, jnp.asarray([0.001, 0.5, 1.0]), jnp.zeros(3))
    np.testing.assert_allclose(mean, x0, rtol=1e-6)
    np.testing.assert_array_equal(variance, 0.0)


@every
def test_solve_inverts_what_the_network_says(x64, schedule):
    """From x_t and y, x0 and noise come back wherever they are determined; elsewhere the rule."""
    process = dj.Gaussian(schedule)
    t = jnp.asarray(TIMES)
    x0, noise = example(len(TIMES))

    @jax.jit
    def run(x0, noise):
        x = process.corrupt(x0, noise, t)
        answers = {}
        for parameterization in PARAMETERIZATIONS:
            a, b = parameterization.coefficients(process, t, x)
            y = dj.target(parameterization, process, x0, noise, t)
            answers[name(parameterization)] = a, b, y, process.solve(x, t, y, a, b)
        return process.scales(t, x), x, answers

    (alpha, sigma), x, answers = run(x0, noise)
    for label, (a, b, y, found) in answers.items():
        assert found.variance is None
        explained = alpha * found.x0 + sigma * found.noise
        np.testing.assert_allclose(explained, x, atol=1e-9, err_msg=label)

        known = np.asarray(alpha * b - sigma * a)[:, 0] != 0
        assert known[1:-1].all(), label
        said = (a * found.x0 + b * found.noise)[known]
        np.testing.assert_allclose(said, y[known], rtol=1e-6, err_msg=label)
        for got, want in ((found.x0, x0), (found.noise, noise)):
            np.testing.assert_allclose(got[known], want[known], rtol=1e-5, atol=1e-8, err_msg=label)
        np.testing.assert_allclose(found.x0[0], x0[0], rtol=1e-12, err_msg=label)
        if not known[0]:
            np.testing.assert_array_equal(found.noise[0], 0.0, err_msg=label)
        if not known[-1]:
            np.testing.assert_array_equal(found.x0[-1], 0.0, err_msg=label)
            np.testing.assert_allclose(found.noise[-1], noise[-1], rtol=1e-12, err_msg=label)


def test_ends_keep_what_x_determines():
    """X0 says nothing of the noise at t = 0, Noise nothing of x0 at t = 1: y is ignored there."""
    process = dj.Gaussian(dj.Cosine())
    x, y = example(2)
    t = jnp.asarray([0.0, 1.0])
    for parameterization, ignored in ((dj.X0(), 0), (dj.Noise(), 1), (dj.Score(), 0)):
        found = process.solve(x, t, y, *parameterization.coefficients(process, t, x))
        other = process.solve(x, t, y + 1, *parameterization.coefficients(process, t, x))
        np.testing.assert_array_equal(found.x0[ignored], other.x0[ignored])
        np.testing.assert_array_equal(found.noise[ignored], other.noise[ignored])
    found = process.solve(x, t, y, *dj.Noise().coefficients(process, t, x))
    np.testing.assert_array_equal(found.x0[0], x[0])
    np.testing.assert_array_equal(found.noise[0], y[0])
    np.testing.assert_array_equal(found.x0[1], 0.0)
    np.testing.assert_array_equal(found.noise[1], x[1])


@pytest.mark.parametrize("schedule", [dj.CosineBeta(), dj.Cosine(), dj.Rectified()], ids=name)
def test_gradients_through_solve_are_finite(schedule):
    """In float32, for x and y and t, at both ends and next to them."""
    process = dj.Gaussian(schedule)
    t = jnp.asarray(TIMES, jnp.float32)
    x, y = (v.astype(jnp.float32) for v in example(len(TIMES)))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def gradients(x, y, t):
        total = jnp.sum(jnp.sin(process.complete(x, t, y).noise))
        for parameterization in PARAMETERIZATIONS:
            a, b = parameterization.coefficients(process, t, x)
            found = process.solve(x, t, y, a, b)
            total += jnp.sum(jnp.sin(found.x0) + jnp.sin(found.noise))
        return total

    for of, gradient in zip(("x", "y", "t"), gradients(x, y, t), strict=True):
        assert np.all(np.isfinite(gradient)), f"gradient in {of}: {gradient}"


@every
def test_complete_keeps_x0_and_explains_x(schedule):
    process = dj.Gaussian(schedule)
    t = jnp.asarray([0.1, 0.5, 1.0])
    x, x0 = example(3)
    completed = process.complete(x, t, x0)
    np.testing.assert_array_equal(completed.x0, x0)
    np.testing.assert_allclose(process.corrupt(completed.x0, completed.noise, t), x, atol=1e-5)
    at_data = process.complete(x, jnp.zeros(3), x0)
    np.testing.assert_array_equal(at_data.noise, 0.0)


@every
def test_time_at_inverts_log_snr(x64, schedule):
    process = dj.Gaussian(schedule)
    t = jnp.asarray(TIMES[1:-1])

    @jax.jit
    def there_and_back(t):
        beyond = jnp.asarray([1e3, -1e3])
        return process.time_at(jnp.concatenate([process.log_snr(t), beyond]))

    found = there_and_back(t)
    np.testing.assert_allclose(found[:-2], t, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found[-2:], [0.0, 1.0], atol=1e-12)


@every
def test_log_snr_is_the_ratio_of_the_scales(schedule):
    process = dj.Gaussian(schedule)
    t = jnp.asarray([0.01, 0.5, 0.99])
    alpha, sigma = process.scales(t, t)
    np.testing.assert_allclose(jnp.exp(process.log_snr(t) / 2) * sigma, alpha, rtol=1e-4)
