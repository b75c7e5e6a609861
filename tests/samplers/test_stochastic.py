"""The stochastic samplers one by one: what each adds to a step, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

PROCESS = dj.Gaussian(dj.Cosine())
DATA = oracle.correlated(3)
KEY = jax.random.key(0)
TIMES = jnp.array([0.9, 0.7, 0.4, 0.2, 0.0])


def denoiser(x, t):
    return DATA.posterior_mean(PROCESS, x, t)


@jax.jit
def run(sampler, x, times=TIMES):
    return dj.sample(KEY, sampler, PROCESS, denoiser, x, times)


@functools.cache
def start(count=4):
    return oracle.normal(0, count, 3)


def test_variances_lie_between_posterior_and_transition():
    """In the logarithm, at the fraction that the constant or the network says, pixel by pixel."""
    x, t, s = start(), jnp.full(4, 0.6), jnp.full(4, 0.4)
    fraction = jnp.linspace(0.0, 1.0, 12).reshape(4, 3)
    _, low = dj.posterior(PROCESS, x, x, t, s)
    _, high = dj.transition(PROCESS, s, t, x)
    prediction = dj.Prediction(x, x, fraction)
    np.testing.assert_allclose(dj.fixed_small(PROCESS, prediction, t, s), low, rtol=1e-5)
    np.testing.assert_allclose(dj.fixed_large(PROCESS, prediction, t, s), high, rtol=1e-5)
    learned = dj.learned_range(PROCESS, prediction, t, s)
    np.testing.assert_allclose(jnp.log(learned / low), fraction * jnp.log(high / low), atol=1e-5)
    constant = dj.LogInterpolated(fraction[1, 1])(PROCESS, prediction, t, s)
    np.testing.assert_allclose(constant[1], learned[1, 1:2], rtol=1e-5)


def test_no_variance_where_the_step_ends_in_data():
    x, t, s = start(), jnp.full(4, 0.6), jnp.zeros(4)
    prediction = dj.Prediction(x, x, jnp.full_like(x, 0.5))
    for variance in (dj.fixed_small, dj.fixed_large, dj.learned_range):
        np.testing.assert_array_equal(variance(PROCESS, prediction, t, s), 0.0)


def test_learned_variance_needs_a_network_that_learns_it():
    with pytest.raises(ValueError, match=r"Prediction.variance is None.*fixed_small"):
        run(dj.Ancestral(dj.learned_range), start())


def test_euler_ancestral_is_ddim_with_eta_1(x64):
    """k-diffusion's step in y = x / alpha: down to sigma_down, then sigma_up of noise."""
    x, z = (oracle.normal(i, 4, 3).astype(jnp.float64) for i in range(2))
    t, s = jnp.full(4, 0.7), jnp.full(4, 0.4)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = PROCESS.scales(t, x), PROCESS.scales(s, x)
    level_t, level_s = sigma_t / alpha_t, sigma_s / alpha_s
    up = jnp.sqrt(level_s**2 * (level_t**2 - level_s**2) / level_t**2)
    down = jnp.sqrt(level_s**2 - up**2)
    y = x / alpha_t
    slope = (y - denoiser(x, t).x0) / level_t
    expected = alpha_s * (y + slope * (down - level_t) + up * z)
    for sampler in (dj.DDIM(1.0), dj.Ancestral(dj.fixed_small)):
        found, _ = sampler.step(x, (), t, s, denoiser, PROCESS, lambda j: z)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_edm_is_algorithm_2(x64):
    """Written as in the paper, in y = x / alpha and sigma-hat, with loops in NumPy."""
    churn, low, high, inflate = 1.2, 0.3, 2.0, 1.01
    times = np.linspace(0.9, 0.0, 6)
    levels = np.tan(times * np.pi / 2)  # sigma / alpha of the cosine
    noise = np.random.default_rng(0).normal(size=(5, 1, 4, 3))
    x = oracle.normal(3, 4, 3).astype(jnp.float64)

    def mean_of_data(y, level):
        t = np.arctan(level) * 2 / np.pi
        return np.asarray(denoiser(jnp.asarray(y * np.cos(t * np.pi / 2)), jnp.full(4, t)).x0)

    y, churned = np.asarray(x) / np.cos(times[0] * np.pi / 2), 0
    for level, after, z in zip(levels[:-1], levels[1:], noise[:, 0], strict=True):
        gamma = min(churn / 5, np.sqrt(2) - 1) if low <= level <= high else 0.0
        churned += gamma > 0
        hat = level * (1 + gamma)
        y = y + np.sqrt(hat**2 - level**2) * inflate * z
        slope = (y - mean_of_data(y, hat)) / hat
        after_euler = y + (after - hat) * slope
        if after > 0:
            slope = 0.5 * (slope + (after_euler - mean_of_data(after_euler, after)) / after)
        y = y + (after - hat) * slope

    sampler = dj.Churn(churn, low, high, inflate)
    noise = jnp.asarray(noise)
    found = jax.jit(
        lambda: dj.sample(KEY, sampler, PROCESS, denoiser, x, jnp.asarray(times), noise=noise)
    )()
    assert 1 < churned < 5
    np.testing.assert_allclose(found, y, rtol=1e-9)


def test_edm_without_churn_is_its_solver():
    x = start()
    for solver in (dj.Heun(), dj.DDIM()):
        expected = run(solver, x)
        np.testing.assert_allclose(run(dj.Churn(solver=solver), x), expected, atol=1e-6)
        outside = dj.Churn(s_churn=3.0, s_tmin=90.0, solver=solver)
        np.testing.assert_allclose(run(outside, x), expected, atol=1e-6)
        changed = run(dj.Churn(s_churn=3.0, solver=solver), x)
        assert np.abs(changed - expected).max() > 0.01


@pytest.mark.parametrize("rate", [dj.ConstantRate(0.05), dj.SignalToNoise(0.16)], ids=oracle.name)
def test_correction_makes_samples_of_the_marginal(rate):
    """From twice too wide, 150 iterations lead to q(x_t), and more leave it alone."""
    count, pixels = 50, 400
    data = oracle.Independent(np.full(pixels, 0.5), np.full(pixels, 0.3))
    t = jnp.full(count, 0.5)

    @jax.jit
    def correct(key):
        def noise(j):
            return jax.random.normal(jax.random.fold_in(key, j), (count, pixels))

        mean, variance = data.moments(PROCESS, t, noise(1000))
        x = mean + 2 * jnp.sqrt(variance) * noise(1001)
        x = dj.Langevin(rate, 150).correct(
            x, t, lambda x, t: data.posterior_mean(PROCESS, x, t), PROCESS, noise
        )
        return ((x - mean) / jnp.sqrt(variance)).ravel()

    z = np.asarray(correct(KEY))
    bound = 5 / np.sqrt(z.size)
    assert abs(z.mean()) < bound
    assert abs(z.var() - 1) < bound * np.sqrt(2) + 0.03  # and rate / 2 of bias


def test_correction_of_rate_0_is_none():
    """What is left is the predictor, with the noises that come first."""
    x = start()
    corrector = dj.Langevin(dj.ConstantRate(0.0), steps=2)
    for predictor in (dj.DDIM(), dj.Churn(s_churn=3.0)):
        both = dj.PredictorCorrector(predictor, corrector)
        assert both.draws == predictor.draws + 2
        np.testing.assert_allclose(run(both, x), run(predictor, x), atol=1e-5)


def test_last_step_is_the_denoisers():
    """To sigma = 0 all of them answer x0, without noise or correction."""
    x, times = start(), jnp.array([0.5, 0.0])
    samplers = (
        dj.Langevin(steps=3),
        dj.PredictorCorrector(),
        dj.EulerMaruyama(),
        dj.Ancestral(dj.LogInterpolated(0.3)),
    )
    expected = denoiser(x, jnp.full(4, 0.5)).x0
    for sampler in samplers:
        np.testing.assert_allclose(
            run(sampler, x, times), expected, atol=1e-6, err_msg=str(sampler)
        )


def test_langevin_keeps_the_signal_between_levels():
    """With a rate of 0 a step multiplies x by the ratio of the alphas."""
    x, times = start(), jnp.array([0.8, 0.3])
    found = run(dj.Langevin(dj.ConstantRate(0.0)), x, times)
    ratio = np.cos(0.3 * np.pi / 2) / np.cos(0.8 * np.pi / 2)
    np.testing.assert_allclose(found, ratio * x, rtol=1e-5)


def test_consistency_jumps_and_noises_again():
    """One jump is the flow to `end`; a step to s adds the transition's noise; below end, none."""
    x, end, times = start(), 0.05, jnp.array([0.9, 0.4, 0.05])
    z = jnp.stack([oracle.normal(5, 1, 4, 3), oracle.normal(6, 1, 4, 3)])

    def to_end(x, t):
        x0 = DATA.flow(PROCESS, x, t, jnp.full(4, end))
        return dj.Prediction(x0, x0)

    @jax.jit
    def both():
        first = to_end(x, jnp.full(4, 0.9)).x0
        r, v = dj.transition(PROCESS, jnp.full(4, end), jnp.full(4, 0.4), x)
        expected = to_end(r * first + jnp.sqrt(v) * z[0, 0], jnp.full(4, 0.4)).x0
        args = KEY, dj.Consistency(end), PROCESS, to_end, x
        return expected, [dj.sample(*args, g, noise=z) for g in (times, times.at[2].set(0.0))]

    expected, (at_end, below) = both()
    np.testing.assert_allclose(at_end, expected, rtol=1e-5)
    np.testing.assert_array_equal(at_end, below)


@pytest.mark.parametrize(
    "schedule", [dj.LinearBeta(), dj.Cosine(), dj.Rectified()], ids=oracle.name
)
def test_inversion_and_reconstruction(schedule):
    """There and back on one grid, from t = 0.02: the error halves with the steps, 2% at 200."""
    process, data = dj.Gaussian(schedule), DATA
    x = data.draw(KEY, 20).astype(jnp.float32)

    @jax.jit
    def errors():
        def error(n):
            times = jnp.linspace(0.02, 0.9, n + 1)
            args = KEY, dj.DDIM(), process, lambda x, t: data.posterior_mean(process, x, t)
            latent = dj.sample(*args, x, times)
            return jnp.sqrt(jnp.mean((dj.sample(*args, latent, times[::-1]) - x) ** 2))

        return error(100), error(200)

    coarse, fine = errors()
    assert fine < 0.02
    assert 1.8 < coarse / fine < 2.2


def test_values_are_leaves():
    """Samplers with other numbers have the same structure, so jit compiles nothing for them."""
    pairs = (
        (dj.Ancestral(dj.LogInterpolated(0.2)), dj.Ancestral(dj.fixed_large)),
        (dj.Churn(), dj.Churn(40.0, 0.05, 50.0, 1.003)),
        (dj.Langevin(), dj.Langevin(dj.ConstantRate(0.3))),
        (dj.PredictorCorrector(), dj.PredictorCorrector(corrector=CORRECTOR)),
        (dj.Consistency(), dj.Consistency(0.01)),
    )
    for one, other in pairs:
        assert jax.tree.structure(one) == jax.tree.structure(other), one
        assert one != other


CORRECTOR = dj.Langevin(dj.SignalToNoise(0.3), steps=1)
EVERY = (
    dj.DDIM(0.5),
    dj.Ancestral(),
    dj.Ancestral(dj.learned_range),
    dj.Heun(),
    dj.Churn(s_churn=1.0),
    dj.EulerMaruyama(),
    dj.Langevin(steps=2),
    dj.Langevin(dj.SignalToNoise(), steps=1),
    dj.PredictorCorrector(),
    dj.Consistency(),
)


@pytest.mark.parametrize("sampler", EVERY, ids=str)
def test_bfloat16_networks_and_both_ends(sampler):
    """From alpha = 0 to sigma = 0: finite, with finite gradients, all float32 but the network.

    The network has no answer at t = 0 (its logarithm), so none of them may ask it there.
    """
    seen = []

    def total(x, weight):
        def network(x, t):
            seen.extend([x.dtype, t.dtype])
            y = weight.astype(jnp.bfloat16) * x.astype(jnp.bfloat16)
            return jnp.sin(y + jnp.log(t)[:, None].astype(jnp.bfloat16))

        def variance_too(x, t):
            prediction = dj.denoiser_from(network, PROCESS, dj.V())(x, t)
            return prediction._replace(variance=jax.nn.sigmoid(x.astype(jnp.bfloat16)))

        times = jnp.array([1.0, 0.7, 0.3, 0.0])
        x = dj.sample(KEY, sampler, PROCESS, variance_too, x, times)
        return jnp.sum(x**2), x

    gradient = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, x), gradients = gradient(start(), jnp.float32(1.3))
    assert x.dtype == jnp.float32
    assert set(seen) == {jnp.dtype(jnp.float32)}
    for leaf in jax.tree.leaves(sampler.init(start(), TIMES)):
        assert leaf.dtype == jnp.float32
    for value in (x, *gradients):
        assert np.all(np.isfinite(value))
    assert abs(gradients[1]) > 0
