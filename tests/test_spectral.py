"""Processes with an alpha for every frequency or pixel: their laws, and the unchanged samplers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import diffusion_jax as dj
from diffusion_jax.types import GaussianProcess
from tests import oracle

PROCESSES = {
    "blurring": dj.blurring(sigma_max=3.0),
    "heat": dj.heat(sigma_max=3.0, steps=20, noise=0.3),
    "soft_blur": dj.Spectral(dj.VE(0.05, 2.0), dj.SineBlur(3.0)),
    "soft_mask": dj.Masked(dj.VE(0.05, 2.0), dj.GaussianMask(steps=10)),
}
every = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
SHAPE = (4, 3, 2)
PAIRS = np.array([(0.0, 0.3), (0.0, 1.0), (0.2, 0.5), (0.4, 0.4), (0.7, 1.0), (0.5, 0.501)])
ENDS = np.array([0.0, 1e-6, 0.04, 0.5, 1 - 1e-6, 1.0])


@every
def test_starts_at_the_data(process):
    x = oracle.normal(0, 1, *SHAPE)
    assert isinstance(process, GaussianProcess)
    alpha, sigma = process.scales(jnp.zeros(1), x)
    assert alpha.shape == (1, 4, 3, 1)
    np.testing.assert_array_equal(alpha, 1.0)
    np.testing.assert_array_equal(sigma, np.float32(0.3 if process == PROCESSES["heat"] else 0.0))
    np.testing.assert_allclose(process.decode(process.encode(x)), x, atol=1e-6)


@pytest.mark.parametrize("sigma", [1.5, 4.0])
def test_damping_is_a_gaussian_blur(sigma):
    """SciPy's, with mirrors for edges; its kernel is cut off and sampled."""
    x = np.asarray(oracle.normal(0, 24, 17))
    process = dj.Spectral(dj.Cosine(), dj.SineBlur(sigma))
    pixels = jnp.asarray(x)[None, ..., None]
    blurred = process.decode(process.damping(jnp.ones(1), pixels) * process.encode(pixels))
    expected = scipy.ndimage.gaussian_filter(x, sigma, mode="reflect", truncate=8)
    np.testing.assert_allclose(blurred[0, ..., 0], expected, atol=1e-4)


def test_heat_is_a_semigroup(x64):
    """To spread for tau_s and then for tau_t - tau_s is to spread for tau_t."""
    process = PROCESSES["heat"]
    s, t = jnp.array([0.3]), jnp.array([0.6])
    x = process.encode(jnp.asarray(np.random.default_rng(0).normal(size=(1, *SHAPE))))
    rest = jnp.sqrt(process.blur(t) ** 2 - process.blur(s) ** 2)
    between = dj.Spectral(process.schedule, lambda t: rest)
    twice = between.damping(t, x) * process.damping(s, x)
    np.testing.assert_allclose(twice, process.damping(t, x), rtol=1e-12)
    np.testing.assert_allclose(dj.transition(process, s, t, x)[0], between.damping(t, x))


@every
def test_transition_and_posterior_keep_the_marginals(x64, process):
    """Corrupt to s and on to t is corrupt to t, and back again by way of the posterior."""
    s, t = jnp.asarray(PAIRS).T
    x0, noise = jnp.asarray(np.random.default_rng(0).normal(size=(2, len(PAIRS), *SHAPE)))

    @jax.jit
    def laws(x0, noise):
        center, x = (process.corrupt(x0, z, t) for z in (0 * noise, noise))
        back = [dj.posterior(process, v, x0, t, s) for v in (center, x)]
        transition = dj.transition(process, s, t, x)
        return process.scales(s, x), process.scales(t, x), transition, *back

    (alpha_s, sigma_s), (alpha_t, sigma_t), (r, v), (center, _), (mean, w) = laws(x0, noise)
    np.testing.assert_allclose(r * alpha_s, alpha_t, atol=1e-14)
    np.testing.assert_allclose(r**2 * sigma_s**2 + v, sigma_t**2 + 0 * r, atol=1e-14)
    np.testing.assert_allclose(center, alpha_s * x0, atol=1e-10)
    slope = (mean - center) / noise
    np.testing.assert_allclose(slope**2 + w, sigma_s**2 + 0 * x0, atol=1e-10)


@every
def test_gradients_are_finite_up_to_the_ends(process):
    t = jnp.asarray(ENDS, jnp.float32)
    x, y = (oracle.normal(seed, len(ENDS), *SHAPE) for seed in (0, 1))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def gradients(x, y, t):
        total = jnp.sum(jnp.sin(process.complete(x, t, y).noise))
        for parameterization in (dj.X0(), dj.V(), dj.LessBlurred(20)):
            a, b = parameterization.coefficients(process, t, x)
            found = process.solve(x, t, y, a, b)
            # The quotient of the error by a damping of e^-30 is finite, and its sine isn't much.
            total += jnp.sum(jnp.sin(found.noise))
            total += jnp.sum(process.scales(t, x)[0] * found.x0)
        return total

    for of, gradient in zip(("x", "y", "t"), gradients(x, y, t), strict=True):
        assert np.all(np.isfinite(gradient)), f"gradient in {of}: {gradient}"


@pytest.mark.parametrize("process", [PROCESSES["heat"]], ids=["heat"])
def test_what_says_the_less_blurred_picture(process):
    """x + sigma y is alpha_s x0, one level before t, and x0 and noise come back from y."""
    t = jnp.array([0.05, 0.5])
    x0, noise = oracle.normal(0, 2, *SHAPE), oracle.normal(1, 2, *SHAPE)
    x = process.corrupt(x0, noise, t)
    y = dj.target(dj.LessBlurred(20), process, x0, noise, t)
    alpha, _ = process.scales(t - 1 / 20, x)
    _, sigma = process.scales(t, x)
    np.testing.assert_allclose(x + sigma * y, alpha * x0, atol=1e-5)
    found = process.solve(x, t, y, *dj.LessBlurred(20).coefficients(process, t, x))
    np.testing.assert_allclose(alpha * found.x0, alpha * x0, atol=1e-5)
    np.testing.assert_allclose(found.noise, noise, atol=1e-4)


DATA = oracle.Independent(
    np.random.default_rng(0).normal(size=SHAPE), np.geomspace(0.2, 2.0, 24).reshape(SHAPE)
)
STEPS = 100
SAMPLERS = {
    "ddim_0": dj.DDIM(0.0),
    "ddim_1": dj.DDIM(1.0),
    "ancestral": dj.Ancestral(),
    "momentum_0": dj.Momentum(0.0),
    "momentum_1": dj.Momentum(1.0),
}


@functools.cache
def exact_moments(process, steps):
    """Mean and variance of each coefficient of samples, {sampler: ([h w c], [h w c])}.

    Coefficients are independent and steps affine, as in test_moments.py: a batch of one start
    and one noise at a time reads off all of the sample's distribution.
    """
    units = jnp.concatenate([jnp.zeros((1, steps + 1)), jnp.eye(steps + 1)])
    ones = jnp.ones((steps + 2, *SHAPE))
    mean, variance = DATA.moments(process, jnp.ones(steps + 2), ones)
    start = mean + jnp.sqrt(variance) * units[:, :1, None, None]
    z = units.T[1:, None, :, None, None, None] * jnp.ones((1, 1, 1, *SHAPE))
    denoiser = oracle.denoiser(DATA, process, dj.X0())
    times = jnp.linspace(1.0, 0.0, steps + 1) ** 2

    def run(sampler):
        x = dj.sample(jax.random.key(0), sampler, process, denoiser, start, times, noise=z)
        return x[0], ((x[1:] - x[:1]) ** 2).sum(0)

    @jax.jit
    def all_of_them(samplers):
        return {name: run(sampler) for name, sampler in samplers.items()}

    return all_of_them(SAMPLERS)


@every
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reach_the_data(process, sampler):
    """What is left of their error halves with the step: extrapolated to none, there is none."""
    wanted = DATA.variance + float(process.schedule.sigma(jnp.zeros(()))) ** 2
    (mean, coarse), (_, fine) = (exact_moments(process, n)[sampler] for n in (STEPS, 2 * STEPS))
    np.testing.assert_allclose((mean - DATA.mean) / np.sqrt(wanted), 0.0, atol=1e-3)
    np.testing.assert_allclose(fine / wanted, 1.0, atol=0.2)
    np.testing.assert_allclose((2 * fine - coarse) / wanted, 1.0, atol=0.03)


def test_heat_sampler_adds_delta_except_to_the_last_picture():
    process = PROCESSES["heat"]
    x, z = oracle.normal(0, 2, *SHAPE), oracle.normal(1, 2, *SHAPE)

    def step(delta):
        s, known = jnp.array([0.5, 0.0]), lambda x, t: dj.Prediction(x, x)
        return dj.Heat(delta).step(x, (), jnp.ones(2), s, known, process, lambda j: z)[0]

    np.testing.assert_allclose((step(0.7) - step(0.0))[0], 0.7 * z[0], atol=1e-6)
    np.testing.assert_array_equal(step(0.7)[1], x[1])


def test_heat_walks_from_level_to_level():
    """With the network that knows x0, each step ends at x0 as blurred as its time says."""
    process, levels = PROCESSES["heat"], 20
    x0 = process.encode(oracle.normal(0, 2, *SHAPE))

    def denoiser(x, t):
        parameterization = dj.LessBlurred(levels)
        a, b = parameterization.coefficients(process, t, x)
        return process.solve(x, t, a * x0 + b * process.complete(x, t, x0).noise, a, b)

    @jax.jit
    def walk(times):
        x = process.corrupt(x0, oracle.normal(1, 2, *SHAPE), jnp.ones(2))
        return dj.sample(jax.random.key(0), dj.Heat(0.0), process, denoiser, x, times)

    for last in (10, levels):
        s = jnp.full(2, 1 - last / levels)
        expected = process.scales(s, x0)[0] * x0
        np.testing.assert_allclose(walk(dj.trailing(levels)[: last + 1]), expected, atol=1e-4)


def test_momentum_adds_one_noise_to_all_frequencies():
    """It is ancestral sampling's without the blur; and without a blur it is ancestral sampling."""
    x, z = oracle.normal(0, 2, *SHAPE), oracle.normal(1, 2, *SHAPE)
    t, s = jnp.full(2, 0.8), jnp.full(2, 0.5)

    def step(sampler, process, z):
        return sampler.step(
            x, (), t, s, lambda x, t: process.complete(x, t, 0.3 * x), process, lambda j: z
        )[0]

    sharp, blurred = dj.Gaussian(dj.VE(0.05, 2.0)), PROCESSES["soft_blur"]
    ancestral = step(dj.Ancestral(), sharp, z)
    np.testing.assert_allclose(step(dj.Momentum(), sharp, z), ancestral, atol=1e-5)
    added = step(dj.Momentum(), blurred, z) - step(dj.Momentum(), blurred, 0 * z)
    np.testing.assert_allclose(added, ancestral - step(dj.Ancestral(), sharp, 0 * z), atol=1e-5)


SOLVERS = {
    "euler": dj.Euler(),
    "heun": dj.Heun(),
    "2M": dj.DPMSolverPP(2),
    "2S": dj.DPMSolverPPSingle(2),
    "unipc": dj.UniPC(2),
    "deis": dj.DEIS(2),
    "plms": dj.PLMS(),
    "pndm": dj.PNDM(),
}


@functools.cache
def solved(steps=100):
    """Errors of mean and standard deviation by every solver on blurring, in units of the data."""
    process = PROCESSES["blurring"]
    ones = jnp.ones((3, *SHAPE))
    mean, variance = DATA.moments(process, jnp.ones(3), ones)
    start = mean + jnp.sqrt(variance) * jnp.array([0.0, 1.0, -1.0])[:, None, None, None]
    denoiser = oracle.denoiser(DATA, process, dj.X0())
    times = jnp.linspace(1.0, 0.0, steps + 1) ** 2

    @jax.jit
    def run():
        found = {}
        for name, sampler in SOLVERS.items():
            x = dj.sample(jax.random.key(0), sampler, process, denoiser, start, times)
            std = jnp.sqrt(jnp.asarray(DATA.variance, jnp.float32))
            errors = (x[0] - DATA.mean) / std, jnp.abs(x[1] - x[0]) / std - 1.0
            found[name] = jnp.stack([jnp.abs(e).max() for e in errors])
        return found

    return run()


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_reach_the_data_of_blurring(name):
    """Flows are affine here, so mean and mean + deviation say all."""
    assert solved()[name].max() < 0.05, solved()[name]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PROCESSES["heat"].prior(jnp.ones(1)), "doesn't end in noise"),
        (lambda: PROCESSES["soft_mask"].prior(jnp.ones(1)), "doesn't end in noise"),
        (lambda: dj.heat(sigma_min=0.0), "sigma_min is 0.0"),
        (lambda: dj.blurring(floor=0.0), "floor is 0.0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_blurring_starts_from_noise():
    np.testing.assert_array_equal(PROCESSES["blurring"].prior(jnp.ones(3)), 1.0)
