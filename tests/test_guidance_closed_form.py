"""Guidance where the answer is known: classes are the components of a mixture.

The perfect classifier p(k | x_t) of a mixture, the denoiser of each component and that of the
whole are closed-form, and so is the law of what should come out: the component itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import name

COMPONENTS = (
    oracle.Independent(np.array([-1.0, 0.5]), np.array([0.3, 0.1])),
    oracle.Independent(np.array([0.7, 0.0]), np.array([0.1, 0.5])),
    oracle.Independent(np.array([0.0, -1.0]), np.array([0.2, 0.05])),
)
MIXTURE = oracle.Mixture((0.3, 0.5, 0.2), COMPONENTS)
PROCESS = dj.Gaussian(dj.LinearVP())
COUNT = 3000  # of each class
CLASSES = np.arange(3 * COUNT) % 3


def of_all(mixture, process):
    return functools.partial(mixture.posterior_mean, process)


def of_label(mixture, process, label):
    """The denoiser of each example's own component."""

    def denoiser(x, t):
        parts = mixture.predictions(process, x, t)
        own = jnp.arange(len(label))
        return dj.Prediction(parts.x0[label, own], parts.noise[label, own])

    return denoiser


def log_posterior(mixture, process, label, pixels, t):
    """log p(label | x_t), by the perfect classifier."""

    def logits(pixels, t):
        return mixture.log_joint(process, process.encode(pixels), t).T

    return dj.class_log_probability(logits, label)(pixels, t)


def by_classifier(mixture, process, label, scale=1.0):
    log_p = functools.partial(log_posterior, mixture, process, label)
    return dj.classifier_guided(of_all(mixture, process), log_p, process, scale)


def double(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def assert_equal(found, expected, tolerance=1e-9):
    for a, b in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def classifier_case(mixture, process, x, t, label):
    """Unguided, guided with scale 0 and 1, and the conditional denoiser that it should be."""

    @jax.jit
    def every(x, t):
        guided = [by_classifier(mixture, process, label, s)(x, t) for s in (0.0, 1.0)]
        return of_all(mixture, process)(x, t), *guided, of_label(mixture, process, label)(x, t)

    unguided, off, guided, conditional = every(x, t)
    assert_equal(off, unguided)
    assert_equal(guided, conditional)
    assert np.abs(unguided.x0 - conditional.x0).max() > 0.1


@pytest.mark.parametrize("schedule", [dj.LinearBeta(), dj.Cosine(), dj.SubVP(), dj.VE()], ids=name)
def test_a_perfect_classifier_at_scale_1_gives_the_conditional_denoiser(schedule, x64):
    t = jnp.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.99])
    label = jnp.array([0, 1, 2, 0, 1, 2])
    classifier_case(MIXTURE, dj.Gaussian(schedule), double(0, 6, 2), t, label)


def test_a_classifier_of_pixels_guides_a_process_of_frequencies(x64):
    """The gradient is taken in the process's coordinates: components are Gaussian in the DCT."""
    rng = np.random.default_rng(0)
    components = tuple(
        oracle.Independent(0.3 * rng.normal(size=(4, 4, 1)), rng.uniform(0.2, 1, (4, 4, 1)))
        for _ in range(2)
    )
    mixture = oracle.Mixture((0.4, 0.6), components)
    t, label = jnp.array([0.1, 0.4, 0.7]), jnp.array([0, 1, 0])
    classifier_case(mixture, dj.blurring(), double(1, 3, 4, 4, 1), t, label)


@pytest.mark.parametrize("guide", [dj.classifier_guided, dj.guided_by])
def test_the_ends_are_unguided_and_x_is_explained_at_every_t(guide):
    """At sigma = 0 x is known, at alpha = 0 it says nothing of the picture."""
    process, t, x = dj.Gaussian(dj.Cosine()), jnp.array([0.0, 0.5, 1.0]), jnp.ones((3, 2))

    @jax.jit
    def run(scale):
        plain = of_all(MIXTURE, process)

        def log_p(pixels, t):
            return -jnp.sum((pixels - 3.0) ** 2, axis=1)

        found = guide(plain, log_p, process, scale)(x, t)
        return process.corrupt(found.x0, found.noise, t), found.x0 - plain(x, t).x0

    explained, moved = run(3.0)
    np.testing.assert_allclose(explained, x, atol=1e-5)
    assert np.all(moved[jnp.array([0, 2])] == 0) and np.all(moved[1] > 0.1)


@functools.cache
def grid(steps):
    """Even in log SNR from what is left at t = 1 to 7, and then 0."""
    inner = PROCESS.time_at(jnp.linspace(PROCESS.log_snr(jnp.ones(())), 7.0, steps))
    return jnp.append(inner, 0.0)


@functools.partial(jax.jit, static_argnames="denoiser_of")
def walk(denoiser_of, sampler, label, times, first, noise):
    x, key = PROCESS.prior(first), jax.random.key(0)
    return dj.sample(key, sampler, PROCESS, denoiser_of(label), x, times, noise=noise)


def sampled(denoiser_of, sampler, steps, label):
    """What the sampler makes of white noise."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((len(label), 2), np.float32)
    noise = rng.standard_normal((steps, sampler.draws, len(label), 2), np.float32)
    return np.asarray(walk(denoiser_of, sampler, label, grid(steps), first, noise))


def check_moments(x, component, allowance):
    """Mean and variance within 5 standard errors, and what the steps may cost."""
    z = (x - component.mean[None]) / np.sqrt(component.variance)[None]
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(len(x)) + allowance
    assert np.abs(z.var(0) - 1).max() < 5 * np.sqrt(2 / len(x)) + allowance


def by_label(label):
    return by_classifier(MIXTURE, PROCESS, label)


def unguided(label):
    return of_all(MIXTURE, PROCESS)


LOG_POSTERIOR = jax.tree_util.Partial(functools.partial(log_posterior, MIXTURE, PROCESS), CLASSES)


def mean_shift(v):
    return dj.MeanShift(dj.Ancestral(dj.LogInterpolated(v)), LOG_POSTERIOR, 1.0)


# The denoiser, the sampler, its steps and what they may cost. With exact denoisers 100 steps of
# DDIM on this grid leave 0.07 in the variance, and 200 half of it.
SAMPLERS = {
    "ancestral": (by_label, dj.Ancestral(), 100, 0.05),
    "ddim": (by_label, dj.DDIM(), 100, 0.05),
    "heun": (by_label, dj.Heun(), 40, 0.02),
    "2M": (by_label, dj.DPMSolverPP(2), 40, 0.02),
    "mean_shift_small": (unguided, mean_shift(0.0), 150, 0.1),
    "mean_shift_large": (unguided, mean_shift(1.0), 150, 0.1),
}


@pytest.mark.parametrize("label", SAMPLERS)
def test_samples_have_the_law_of_their_class(label):
    denoiser_of, sampler, steps, allowance = SAMPLERS[label]
    x = sampled(denoiser_of, sampler, steps, CLASSES)
    for k, component in enumerate(COMPONENTS):
        check_moments(x[k::3], component, allowance)


def test_the_shift_of_a_mean_becomes_the_conditional_one_in_short_steps(x64):
    """One step's shift is the conditional mean's times r (sigma_s^2 / sigma_t^2)^(1 - v)."""
    x, t, label = jnp.asarray(double(0, 3, 2)), jnp.full(3, 0.4), jnp.arange(3)
    log_p = functools.partial(log_posterior, MIXTURE, PROCESS, label)

    @jax.jit
    def ratio(v, s):
        def mean(sampler, denoiser):
            step = sampler.step(x, (), t, s, denoiser, PROCESS, lambda j: jnp.zeros_like(x))
            return step[0]

        plain = dj.Ancestral(dj.LogInterpolated(v))
        before = mean(plain, unguided(label))
        shift = mean(dj.MeanShift(plain, log_p, 1.0), unguided(label)) - before
        r, _ = dj.transition(PROCESS, s, t, x)
        (_, sigma_t), (_, sigma_s) = PROCESS.scales(t, x), PROCESS.scales(s, x)
        expected = jnp.broadcast_to(r * (sigma_s / sigma_t) ** (2 - 2 * v), x.shape)
        return shift / (mean(plain, by_label(label)) - before), expected

    for v, s in ((0.0, 0.3), (1.0, 0.3), (0.0, 0.3999), (1.0, 0.3999)):
        found, expected = ratio(v, jnp.full(3, s))
        np.testing.assert_allclose(found, expected, rtol=1e-7)
        assert s == 0.3 or np.all(np.abs(found - 1) < 1e-3)


def gamma_of_class(label):
    """Gamma 1 for class 1, 0 for class 0: conditional and unconditional in one batch."""
    conditional = of_label(MIXTURE, PROCESS, jnp.ones_like(label))
    return dj.classifier_free(conditional, unguided(label), label.astype(float))


def test_gamma_1_samples_the_class_and_0_all_of_them():
    label = np.repeat([1, 0], COUNT)
    conditional, every = np.split(sampled(gamma_of_class, dj.DDIM(), 100, label), 2)
    check_moments(conditional, COMPONENTS[1], 0.05)
    weights = np.array(MIXTURE.weights)[:, None]
    means, variances = (np.stack([getattr(c, f) for c in COMPONENTS]) for f in ("mean", "variance"))
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean[None]) ** 2)).sum(0)
    check_moments(every, oracle.Independent(mean, variance), 0.05)


# The second knows coordinate 0 and the third coordinate 1: their product is one at every t.
EXPERTS = (
    oracle.Independent(np.array([0.0, 0.2]), np.array([1.0, 0.8])),
    oracle.Independent(np.array([0.8, 0.2]), np.array([0.2, 0.8])),
    oracle.Independent(np.array([0.0, -0.5]), np.array([1.0, 0.1])),
)
BOTH = oracle.Independent(np.array([0.8, -0.5]), np.array([0.2, 0.1]))


def together(label, scales=(1.0, 1.0)):
    unconditional, *conditionals = (functools.partial(e.posterior_mean, PROCESS) for e in EXPERTS)
    return dj.composed(conditionals, unconditional, scales)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (2.0, 0.5), (1.5, -0.3)], ids=str)
def test_composition_has_the_score_of_the_product_of_experts(scales, x64):
    """At each t: of q(x) prod_i (q(x | c_i) / q(x))^gamma_i, whose precisions and weighted
    means add up."""
    t, x = jnp.array([0.1, 0.5, 0.9]), jnp.asarray(double(0, 3, 2))
    exponents = (1 - sum(scales), *scales)

    @jax.jit
    def both():
        moments = [e.moments(PROCESS, t, x) for e in EXPERTS]
        precision = sum(g / v for g, (_, v) in zip(exponents, moments, strict=True))
        weighted = sum(g * m / v for g, (m, v) in zip(exponents, moments, strict=True))
        score = weighted - precision * x
        found = together(None, scales)(x, t)
        _, sigma = PROCESS.scales(t, x)
        return found.noise, -sigma * score, PROCESS.corrupt(found.x0, found.noise, t)

    noise, expected, explained = both()
    np.testing.assert_allclose(noise, expected, rtol=1e-9)
    np.testing.assert_allclose(explained, x, rtol=1e-9)


def test_two_conditions_together_sample_their_product():
    x = sampled(together, dj.DDIM(), 100, np.zeros(2 * COUNT, int))
    check_moments(x, BOTH, 0.05)


def test_a_gaussian_measurement_moves_x0_by_its_gain(x64):
    """For y = A x0 + N(0, R), x0' = x0 + K (y - A x0).

    With V the covariance of the data given x_t, the likelihood of covariance R + A V A' has
    Kalman's gain K = V A' (R + A V A')^-1, and the denoiser is that of the data given y, at
    every t. The plain likelihood, DPS, has K = V A' R^-1: too much, by what A V A' is to R.
    """
    data, process = oracle.correlated(3), dj.Gaussian(dj.Cosine())
    a, r = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]]), np.diag([0.1, 0.3])
    c, y, x = data.covariance, double(1, 2), jnp.asarray(double(2, 5, 3))
    t = jnp.linspace(0.05, 0.95, 5)
    alpha, sigma = (np.asarray(v)[:, :, None] for v in process.scales(t, x))
    v = c - alpha**2 * c @ np.linalg.inv(alpha**2 * c + sigma**2 * np.eye(3)) @ c
    aware, plain = r + a @ v @ a.T, np.broadcast_to(r, (5, 2, 2))

    @jax.jit
    def guided(precision):
        def log_density(x0, t):
            rest = y[None] - x0 @ a.T
            return -0.5 * jnp.einsum("bi,bij,bj->b", rest, precision, rest)

        before = functools.partial(data.posterior_mean, process)
        return dj.guided_by(before, log_density, process, 1.0)(x, t).x0, before(x, t).x0

    k = c @ a.T @ np.linalg.inv(a @ c @ a.T + r)
    given = oracle.Correlated(data.mean + k @ (y - a @ data.mean), c - k @ a @ c)
    exact = given.posterior_mean(process, x, t).x0
    for covariance in (aware, plain):
        found, before = guided(np.linalg.inv(covariance))
        gain = v @ a.T @ np.linalg.inv(covariance)
        move = np.einsum("bij,bj->bi", gain, y[None] - before @ a.T)
        np.testing.assert_allclose(found - before, move, rtol=1e-9)
        error = np.abs(found - exact).max(axis=1)
        assert np.all(error < 1e-9) if covariance is aware else np.all(error > 1e-3)
