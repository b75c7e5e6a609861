"""Parameterizations: what the words mean, and how their errors relate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import PARAMETERIZATIONS, SCHEDULES, name

every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
every_parameterization = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=name)
T = np.array([0.0505, 0.3215, 0.7005, 0.9805])  # off a table's knots


def example(seed=0):
    x0, noise = np.random.default_rng(seed).normal(size=(2, len(T), 3))
    return jnp.asarray(x0), jnp.asarray(noise)


@every
def test_x0_and_noise_are_themselves(schedule):
    process = dj.Gaussian(schedule)
    x0, noise = example()
    t = jnp.asarray(T)
    np.testing.assert_array_equal(dj.target(dj.X0(), process, x0, noise, t), x0)
    np.testing.assert_array_equal(dj.target(dj.Noise(), process, x0, noise, t), noise)


@every
def test_velocity_is_the_derivative_of_x(x64, schedule):
    process = dj.Gaussian(schedule)
    x0, noise = example()
    t, h = jnp.asarray(T), 1e-6

    @jax.jit
    def both(t):
        before, after = (process.corrupt(x0, noise, time) for time in (t - h, t + h))
        return dj.target(dj.Velocity(), process, x0, noise, t), (after - before) / (2 * h)

    velocity, difference = both(t)
    np.testing.assert_allclose(velocity, difference, rtol=1e-6, atol=1e-7)


def test_rectified_velocity_is_noise_minus_data():
    process = dj.Gaussian(dj.Rectified())
    x0, noise = example()
    for t in (jnp.zeros(4), jnp.asarray(T), jnp.ones(4)):
        velocity = dj.target(dj.Velocity(), process, x0, noise, t)
        np.testing.assert_allclose(velocity, noise - x0, rtol=1e-6)


def test_v_is_the_velocity_of_the_cosine_by_angle(x64):
    """The cosine's angle is t pi/2, and v is dx/d angle: velocity = v pi/2, at both ends too."""
    process = dj.Gaussian(dj.Cosine())
    x0, noise = example()
    t = jnp.asarray([0.0, 0.3, 0.8, 1.0])
    v, velocity = (dj.target(p, process, x0, noise, t) for p in (dj.V(), dj.Velocity()))
    np.testing.assert_allclose(velocity, v * np.pi / 2, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=name)
def test_v_is_a_rotation_of_x_where_variance_is_preserved(x64, schedule):
    """|x|^2 + |v|^2 = |x0|^2 + |noise|^2 if alpha^2 + sigma^2 = 1."""
    process = dj.Gaussian(schedule)
    x0, noise = example()
    t = jnp.asarray(T)
    x, v = process.corrupt(x0, noise, t), dj.target(dj.V(), process, x0, noise, t)
    np.testing.assert_allclose(x**2 + v**2, x0**2 + noise**2, rtol=1e-10)


@every
def test_score_is_the_gradient_of_the_log_density(x64, schedule):
    process = dj.Gaussian(schedule)
    x0, noise = example()
    t = jnp.asarray(T)

    @jax.jit
    def both(x0, noise):
        x = process.corrupt(x0, noise, t)
        alpha, sigma = process.scales(t, x)

        def log_q(x):
            return jnp.sum(jax.scipy.stats.norm.logpdf(x, loc=alpha * x0, scale=sigma))

        return dj.target(dj.Score(), process, x0, noise, t), jax.grad(log_q)(x)

    np.testing.assert_allclose(*both(x0, noise), rtol=1e-9)


@every
def test_errors_of_y_x0_and_noise_are_proportional(x64, schedule):
    """|dy|^2 = (det / sigma)^2 |dx0|^2 = (det / alpha)^2 |dnoise|^2."""
    process = dj.Gaussian(schedule)
    x, y = example()
    error, _ = example(seed=1)
    t = jnp.asarray(T)

    @jax.jit
    def run(x, y):
        def solved(parameterization):
            a, b = parameterization.coefficients(process, t, x)
            return a, b, *(process.solve(x, t, answer, a, b) for answer in (y, y + error))

        return process.scales(t, x), {name(p): solved(p) for p in PARAMETERIZATIONS}

    (alpha, sigma), answers = run(x, y)
    for label, (a, b, right, wrong) in answers.items():
        det = alpha * b - sigma * a
        for scale, moved in ((sigma, wrong.x0 - right.x0), (alpha, wrong.noise - right.noise)):
            predicted = (det / scale) ** 2 * moved**2
            np.testing.assert_allclose(predicted, error**2, rtol=1e-6, err_msg=label)


@every_parameterization
def test_coefficients_have_the_rank_of_x(parameterization):
    process = dj.Gaussian(dj.Cosine())
    a, b = parameterization.coefficients(process, jnp.asarray(T), jnp.ones((4, 2, 2, 1)))
    assert a.shape == b.shape == (4, 1, 1, 1)
    ends = parameterization.coefficients(process, jnp.asarray([0.0, 1.0]), jnp.ones((2, 1)))
    assert all(np.all(np.isfinite(c)) for c in ends)


@pytest.mark.parametrize("kind", [type(p) for p in PARAMETERIZATIONS])
def test_compares_and_hashes_by_value(kind):
    assert kind() == kind() and hash(kind()) == hash(kind())
