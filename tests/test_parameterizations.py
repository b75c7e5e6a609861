"""Parameterizations: what the words mean, and how their errors relate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import MORE_SCHEDULES, PARAMETERIZATIONS, SCHEDULES, name

ALL = (*PARAMETERIZATIONS, dj.EDM(), dj.EDM(sigma_data=2.0))
wide = pytest.mark.parametrize("schedule", (*SCHEDULES, *MORE_SCHEDULES), ids=repr)

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


@wide
def test_round_trip_of_all_pairs(x64, schedule):
    """What one network says, told by the solve, is what another would have said."""
    process = dj.Gaussian(schedule)
    x0, noise = example()
    t = jnp.asarray(T)

    @jax.jit
    def run(x0, noise):
        x = process.corrupt(x0, noise, t)
        every = [p.coefficients(process, t, x) for p in ALL]
        a, b = (jnp.stack(c) for c in zip(*every, strict=True))
        y = a * x0[None] + b * noise[None]
        found = jax.vmap(process.solve, (None, None, 0, 0, 0))(x, t, y, a, b)
        return y, a[:, None] * found.x0[None] + b[:, None] * found.noise[None]

    y, again = run(x0, noise)
    np.testing.assert_allclose(
        again, np.broadcast_to(y[:, None], again.shape), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("schedule", MORE_SCHEDULES, ids=repr)
def test_float32_answers_and_gradients_are_finite_up_to_the_ends(schedule):
    process = dj.Gaussian(schedule)
    t = jnp.array([0.0, 1e-6, 0.3, 1 - 1e-6, 1.0], jnp.float32)
    x, y = (jnp.tile(v[:1].astype(jnp.float32), (5, 1)) for v in example())

    def total(t, x, y):
        kept = [dj.Velocity(), dj.EDM(), dj.Score()]
        every = [p.coefficients(process, t, x) for p in kept]
        a, b = (jnp.stack(c) for c in zip(*every, strict=True))
        found = jax.vmap(process.solve, (None, None, None, 0, 0))(x, t, y, a, b)
        return jnp.sum(jnp.sin(found.x0)) + jnp.sum(jnp.sin(found.noise))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(t, x, y)
    for of, gradient in zip(("t", "x", "y"), gradients, strict=True):
        assert np.all(np.isfinite(gradient)), f"gradient in {of}: {gradient}"


@every
def test_edm_has_unit_variance_in_and_out(x64, schedule):
    """For data of standard deviation c: what the network sees, and what it says."""
    process, edm = dj.Gaussian(schedule), dj.EDM(sigma_data=0.7)
    t = jnp.asarray([0.0, *T, 1.0])
    alpha, sigma = process.scales(t, t)
    scale = edm.input_scale(process)(t)
    np.testing.assert_allclose(scale**2 * ((0.7 * alpha) ** 2 + sigma**2), 1.0, rtol=1e-12)
    a, b = edm.coefficients(process, t, t)
    np.testing.assert_allclose((0.7 * a) ** 2 + b**2, 1.0, rtol=1e-12)
    assert np.all(np.isfinite(edm.network_time(process)(t)))


def test_edm_skips_as_its_paper_does(x64):
    """alpha = 1: x0 = c_skip x + c_out F, and c_noise = log(sigma) / 4."""
    process, edm, t = dj.Gaussian(dj.KarrasVE()), dj.EDM(0.5), jnp.asarray(T)
    x, f = example()
    sigma = process.schedule.sigma(t)
    skip, out = 0.25 / (sigma**2 + 0.25), 0.5 * sigma / jnp.sqrt(sigma**2 + 0.25)
    found = process.solve(x, t, f, *edm.coefficients(process, t, x))
    np.testing.assert_allclose(found.x0, skip[:, None] * x + out[:, None] * f, rtol=1e-9)
    np.testing.assert_allclose(edm.network_time(process)(t), jnp.log(sigma) / 4, rtol=1e-9)


def test_edm_of_unit_data_is_minus_v_where_variance_is_preserved(x64):
    process, t = dj.Gaussian(dj.Cosine()), jnp.asarray([0.0, *T[1:3], 1.0])
    f, v = (dj.target(p, process, *example(), t) for p in (dj.EDM(1.0), dj.V()))
    np.testing.assert_allclose(f, -v, atol=1e-12)


def test_learned_variance_is_the_second_half_of_the_channels():
    process, x, t = dj.Gaussian(dj.Cosine()), jnp.ones((4, 2, 2, 3)), jnp.asarray(T)
    plain, learned = dj.V(), dj.LearnedVariance(dj.V())

    def network(x, t):
        return 0.3 * x

    def twice(x, t):
        return jnp.concatenate([0.3 * x, jnp.full(x.shape, 0.5)], axis=-1)

    expected = dj.denoiser_from(network, process, plain)(x, t)
    found = dj.clip(dj.denoiser_from(twice, process, learned), process, -9.0, 9.0)(x, t)
    np.testing.assert_allclose(found.x0, expected.x0, rtol=1e-6)
    np.testing.assert_array_equal(found.variance, np.full(x.shape, 0.75))  # (0.5 + 1) / 2
    assert expected.variance is None
    with pytest.raises(ValueError, match=r"shape \(4, 2, 2, 3\); .* twice the channels"):
        dj.denoiser_from(network, process, learned)(x, t)
    with pytest.raises(ValueError, match=r"shape \(4, 2, 2, 6\) to an x of shape"):
        dj.denoiser_from(twice, process, plain)(x, t)


@every_parameterization
def test_coefficients_have_the_rank_of_x(parameterization):
    process = dj.Gaussian(dj.Cosine())
    a, b = parameterization.coefficients(process, jnp.asarray(T), jnp.ones((4, 2, 2, 1)))
    assert a.shape == b.shape == (4, 1, 1, 1)
    ends = parameterization.coefficients(process, jnp.asarray([0.0, 1.0]), jnp.ones((2, 1)))
    assert all(np.all(np.isfinite(c)) for c in ends)


@pytest.mark.parametrize(
    "kind", [*(type(p) for p in PARAMETERIZATIONS), dj.EDM, dj.LearnedVariance]
)
def test_compares_and_hashes_by_value(kind):
    assert kind() == kind() and hash(kind()) == hash(kind())
