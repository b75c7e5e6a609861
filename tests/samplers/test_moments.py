"""Every sampler x schedule x parameterization reaches the mean and covariance of Gaussian data.

With the optimal denoiser of Gaussian data every step is affine in x and in its noise, and so
is the whole sample: x_end = c + J e + sum_i K_i z_i for x_start = mean + L e. A batch of unit
vectors for e and z, handed over as `noise`, reads off J and K, and with them the sample's
exact mean c and covariance J J' + sum K_i K_i'. That is the limit of infinitely many samples:
no Monte-Carlo error is left, only that of the steps, which is an order below the Monte-Carlo
error of the thousands of samples that could be drawn instead. `test_moments_from_a_key` draws
them, and bounds the Monte-Carlo error itself.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.types import Parameterization
from tests import oracle
from tests.oracle import MORE_SCHEDULES, PARAMETERIZATIONS, SCHEDULES, name

DATA = oracle.correlated(2)
MEAN, COVARIANCE = (np.asarray(m, np.float32) for m in (DATA.mean, DATA.covariance))
STEPS = 500
EVERY = (*PARAMETERIZATIONS, dj.EDM(0.7))
SAMPLERS = ("ddim_0", "ddim_0.5", "ddim_1", "ancestral_small", "ancestral_large")


@dataclass(frozen=True)
class Chosen(Parameterization):
    """The parameterization with this number, which may be traced: one program for all."""

    number: jax.Array

    def coefficients(self, process, t, x):
        every = [p.coefficients(process, t, x) for p in EVERY]
        return tuple(jnp.stack(c)[self.number] for c in zip(*every, strict=True))


def of_every_sampler(run):
    """run(sampler) for each of SAMPLERS, stacked, as two programs instead of five."""
    ddim = jax.vmap(lambda eta: run(dj.DDIM(eta)))(jnp.array([0.0, 0.5, 1.0]))
    rest = jax.vmap(lambda v: run(dj.Ancestral(dj.LogInterpolated(v))))(jnp.array([0.0, 1.0]))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ddim, rest)


def start_of(process):
    """Mean [1 d] and a root [d d] of the covariance of x_1 = alpha x0 + sigma noise, exactly.

    Not of N(0, I): tables leave some signal at t = 1, and that bias isn't the sampler's.
    """
    alpha, sigma = process.scales(jnp.ones(1), jnp.ones((1, 1)))
    return alpha * MEAN[None], jnp.linalg.cholesky(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(2))


def grid(steps):
    """From 1 to 0, denser near the data, where the signal-to-noise ratio moves fastest."""
    return jnp.linspace(1.0, 0.0, steps + 1) ** 2


def exact_moments(sampler, process, denoiser, steps):
    """Mean [d] and covariance [d d] of what the sampler makes of the exact x_1."""
    units = np.eye(2 + steps * 2, dtype=np.float32)
    units = np.concatenate([np.zeros_like(units[:1]), units])
    e, z = units[:, :2], units[:, 2:].reshape(-1, steps, 1, 2).transpose(1, 2, 0, 3)
    mean, root = start_of(process)
    start, key = mean + e @ root.T, jax.random.key(0)
    x = dj.sample(key, sampler, process, denoiser, start, grid(steps), noise=jnp.asarray(z))
    columns = x[1:] - x[:1]
    return x[0], columns.T @ columns


@functools.cache
def moments(schedule):
    """Means [parameterization, sampler, d] and covariances [..., d d]."""
    process = dj.Gaussian(schedule)

    def of_parameterization(number):
        denoiser = oracle.denoiser(DATA, process, Chosen(number))
        return of_every_sampler(lambda s: exact_moments(s, process, denoiser, STEPS))

    return jax.jit(jax.vmap(of_parameterization))(jnp.arange(len(EVERY)))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("parameterization", EVERY, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_mean_and_covariance_are_the_datas(schedule, parameterization, sampler):
    which = EVERY.index(parameterization), SAMPLERS.index(sampler)
    mean, covariance = (np.asarray(m[which]) for m in moments(schedule))
    # In units of the data: 4,000 samples would have an error of 0.016 and 0.022 (one sigma).
    whiten = np.linalg.inv(np.linalg.cholesky(COVARIANCE))
    mean_error = np.abs(whiten @ (mean - MEAN)).max()
    covariance_error = np.abs(whiten @ covariance @ whiten.T - np.eye(2)).max()
    assert mean_error < 0.005
    assert covariance_error < 0.02


@functools.cache
def flows(schedule):
    """Errors of mean and covariance of what the flow makes, [parameterization, 2]."""
    process = dj.Gaussian(schedule)
    whiten = np.linalg.inv(np.linalg.cholesky(COVARIANCE)).astype(np.float32)

    def of_parameterization(number):
        denoiser = oracle.denoiser(DATA, process, Chosen(number))
        mean, root = start_of(process)
        start = mean + jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)]) @ root.T
        x = dj.sample(jax.random.key(0), dj.DDIM(), process, denoiser, start, grid(STEPS))
        columns = whiten @ (x[1:] - x[:1]).T
        errors = whiten @ (x[0] - MEAN), columns @ columns.T - jnp.eye(2)
        return jnp.stack([jnp.abs(error).max() for error in errors])

    return jax.jit(jax.vmap(of_parameterization))(jnp.arange(len(EVERY)))


@pytest.mark.parametrize("parameterization", EVERY, ids=name)
@pytest.mark.parametrize("schedule", MORE_SCHEDULES, ids=name)
def test_the_flow_on_other_schedules(schedule, parameterization):
    """DDIM without noise, whose error is that of its steps; a sample is affine in its start.

    Where alpha(1) = 0, noise, score and velocity say nothing of x0, and the first step takes it
    to be 0: the mean is off by alpha at its end.
    """
    mean_error, covariance_error = flows(schedule)[EVERY.index(parameterization)]
    silent = schedule.alpha(jnp.ones(1))[0] == 0
    assert mean_error < 0.01 + silent * schedule.alpha(grid(STEPS)[1:2])[0]
    assert covariance_error < 0.05


def test_moments_from_a_key():
    """20,000 samples against the exact moments of the same sampler: 5 sigma of Monte-Carlo."""
    count, steps = 20_000, 20
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())

    @jax.jit
    def both(key):
        def of(sampler):
            start, root = start_of(process)
            x = start + dj.draw_prior(key, process, (count, 2)) @ root.T
            x = dj.sample(key, sampler, process, denoiser, x, grid(steps))
            return x, exact_moments(sampler, process, denoiser, steps)

        return of_every_sampler(of)

    samples, (means, covariances) = (jax.tree.map(np.asarray, v) for v in both(jax.random.key(1)))
    for label, x, mean, covariance in zip(SAMPLERS, samples, means, covariances, strict=True):
        z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean[None]).T)
        bound = 5 / np.sqrt(count)
        assert np.abs(z.mean(1)).max() < bound, label
        assert np.abs(np.cov(z) - np.eye(2)).max() < bound * np.sqrt(2), label


@pytest.mark.parametrize("schedule", [dj.LinearBeta(), dj.Cosine(), dj.Rectified()], ids=name)
def test_ddim_is_of_first_order(schedule):
    """Twice the steps, half the distance to the exact solution of the probability-flow ODE."""
    process = dj.Gaussian(schedule)
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x = oracle.normal(0, 4, 2)

    @jax.jit
    def errors():
        exact = DATA.flow(process, x, jnp.ones(4), jnp.zeros(4))
        runs = [
            dj.sample(jax.random.key(0), dj.DDIM(), process, denoiser, x, dj.trailing(n))
            for n in (100, 200)
        ]
        return [jnp.linalg.norm(run - exact) for run in runs]

    coarse, fine = errors()
    assert 1.8 < coarse / fine < 2.2


def test_ddim_of_eta_1_is_ancestral_sampling():
    """For one consistent prediction the two formulas are the same Gaussian."""
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x = oracle.normal(0, 3, 2)

    @jax.jit
    def both():
        def run(sampler):
            return dj.sample(jax.random.key(1), sampler, process, denoiser, x, grid(10))

        return run(dj.DDIM(1.0)), run(dj.Ancestral(dj.fixed_small))

    np.testing.assert_allclose(*both(), atol=1e-4)


def test_mixture_modes_are_reached_in_proportion():
    """Two narrow modes of weight 0.3 and 0.7: their shares within 5 sigma, their own moments."""
    modes = (
        oracle.Independent(np.array([-2.0, 1.0]), np.array([0.04, 0.01])),
        oracle.Independent(np.array([2.0, 0.0]), np.array([0.01, 0.09])),
    )
    data = oracle.Mixture((0.3, 0.7), modes)
    process = dj.Gaussian(dj.Cosine())
    count = 4000

    @jax.jit
    def run(key):
        x = dj.draw_prior(key, process, (count, 2))
        denoiser = oracle.denoiser(data, process, dj.V())
        return dj.sample(key, dj.DDIM(1.0), process, denoiser, x, dj.trailing(200))

    x = np.asarray(run(jax.random.key(0)))
    right = x[:, 0] > 0
    assert abs(right.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / count)
    for mode, chosen in zip(modes, (x[~right], x[right]), strict=True):
        z = (chosen - mode.mean[None]) / np.sqrt(mode.variance)[None]
        assert np.abs(z.mean(0)).max() < 5 / np.sqrt(len(z)) + 0.05
        assert np.abs(z.var(0) - 1).max() < 5 * np.sqrt(2 / len(z)) + 0.05


def test_eta_scales_the_standard_deviation_of_a_step():
    """One step adds eta times the noise of ancestral sampling, and none at eta = 0."""
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x, times, key = jnp.ones((1, 2)), jnp.array([0.6, 0.4]), jax.random.key(0)

    @jax.jit
    def added(sampler):
        one, none = (
            dj.sample(key, sampler, process, denoiser, x, times, noise=jnp.full((1, 1, 1, 2), z))
            for z in (1.0, 0.0)
        )
        return one - none

    whole = added(dj.Ancestral(dj.fixed_small))
    assert np.all(whole > 0.1)
    for eta in (0.0, 0.3, 0.5, 1.0):
        np.testing.assert_allclose(added(dj.DDIM(eta)), eta * whole, rtol=1e-4, atol=1e-6)
