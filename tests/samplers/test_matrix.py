"""The oracle matrix: every sampler x every schedule, on Gaussian data and on a mixture.

The denoiser is exact, so a sample's law differs from the data's by the sampler's steps alone:
4,000 samples of each have to have the data's moments, and the mixture its components' weights
and moments, within 5 standard errors and the allowance that each row states for its steps.

One row of CASES adds a sampler, one row of `oracle.SCHEDULES` a schedule. A sampler is compiled
once for all schedules: the schedule's number is traced, and `lax.switch` picks it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import MORE_SCHEDULES, name

SCHEDULES = (*oracle.SCHEDULES, *MORE_SCHEDULES)
COUNT = 4000
GAUSSIAN = oracle.correlated(2)
MODES = (
    oracle.Independent(np.array([-2.0, 1.0]), np.array([0.04, 0.01])),
    oracle.Independent(np.array([2.0, 0.0]), np.array([0.01, 0.09])),
)
MIXTURE = oracle.Mixture((0.3, 0.7), MODES)


@dataclass(frozen=True)
class Chosen:
    """The schedule with this number, which is traced: one program for all of them."""

    number: jax.Array

    def alpha(self, t):
        return jax.lax.switch(self.number, [s.alpha for s in SCHEDULES], t)

    def sigma(self, t):
        return jax.lax.switch(self.number, [s.sigma for s in SCHEDULES], t)


def exact(process):
    """The optimal denoiser of a batch whose first half is Gaussian, the second of the mixture."""

    def denoiser(x, t):
        halves = zip((GAUSSIAN, MIXTURE), jnp.split(x, 2), jnp.split(t, 2), strict=True)
        parts = [data.posterior_mean(process, x, t)[:2] for data, x, t in halves]
        return dj.Prediction(*(jnp.concatenate(v) for v in zip(*parts, strict=True)))

    return denoiser


def with_variance(process):
    """The same, and a fraction of the log variance that depends on x."""
    denoiser = exact(process)
    return lambda x, t: denoiser(x, t)._replace(variance=jax.nn.sigmoid(x))


def consistency(process):
    """Where the probability-flow ODE takes x_t at t = 0, in 32 steps of Heun."""
    denoiser, heun = exact(process), dj.Heun()

    def function(x, t):
        def step(x, ratios):
            x, _ = heun.step(x, (), t * ratios[0], t * ratios[1], denoiser, process, None)
            return x, None

        ratios = jnp.linspace(1.0, 0.0, 33) ** 3
        x, _ = jax.lax.scan(step, x, jnp.stack([ratios[:-1], ratios[1:]], axis=1))
        return dj.Prediction(x, x)

    return function


@dataclass(frozen=True)
class Case:
    """A sampler, the grid it walks, and how far its steps alone may leave it from the data.

    Attributes:
        sampler: the sampler.
        allowance: of means, in standard deviations, of variances, in variances, and of weights.
        steps: length of the grid.
        from_noise: the grid starts at t = 1, whatever alpha is there.
        denoiser: process -> denoiser.
        without: names of schedules that it doesn't apply to.
    """

    sampler: dj.types.Sampler
    allowance: float = 0.02
    steps: int = 100
    from_noise: bool = True
    denoiser: Callable = exact
    without: tuple[str, ...] = ()


# Heun's error grows with the length of its step in sigma / alpha, and the cosine table ends at
# 20,000: from there it would need more steps. Where alpha(1) = 0 it takes DDIM's first step.
SLOW = dj.Langevin(dj.ConstantRate(0.5), steps=20)
FEW = dj.Langevin(dj.ConstantRate(0.1), steps=2)
CASES = {
    "ddim": Case(dj.DDIM()),
    "ancestral_small": Case(dj.Ancestral(), 0.1, steps=150),
    "ancestral_large": Case(dj.Ancestral(dj.fixed_large), 0.1, steps=150),
    "ancestral_learned": Case(
        dj.Ancestral(dj.learned_range), 0.1, steps=150, denoiser=with_variance
    ),
    "euler": Case(dj.Euler(), 0.05, steps=300, from_noise=False),
    "heun": Case(dj.Heun(), steps=50, from_noise=False),
    "2M": Case(dj.DPMSolverPP(2), steps=40),
    "3M": Case(dj.DPMSolverPP(3, dj.exact), steps=40),
    "2M_sde": Case(dj.DPMSolverPP(2, eta=1.0), 0.05, steps=80),
    "2S": Case(dj.DPMSolverPPSingle(2), steps=40),
    "3S": Case(dj.DPMSolverPPSingle(3, dj.exact), steps=40),
    "unipc": Case(dj.UniPC(2), steps=40),
    "deis": Case(dj.DEIS(3), steps=40),
    "pndm": Case(dj.PNDM(), steps=50, from_noise=False),
    "plms": Case(dj.PLMS(), steps=50, from_noise=False),
    # Its last 0.1 % of t is a DDIM step, which on Sqrt begins at sigma = 0.17.
    "adaptive": Case(dj.Adaptive(), steps=1, from_noise=False, without=("Sqrt",)),
    "edm": Case(dj.Churn(s_churn=10.0), 0.05),
    "edm_euler": Case(dj.Churn(s_churn=5.0, solver=dj.DDIM()), 0.1),
    "euler_maruyama": Case(dj.EulerMaruyama(), 0.05, steps=150, from_noise=False),
    "langevin": Case(SLOW, 0.05, steps=60, from_noise=False),
    "ddim_and_langevin": Case(dj.PredictorCorrector(dj.DDIM(), FEW)),
    "euler_and_langevin": Case(
        dj.PredictorCorrector(dj.EulerMaruyama(), FEW), steps=100, from_noise=False
    ),
    "consistency": Case(dj.Consistency(), steps=4, from_noise=False, denoiser=consistency),
}


def grid(process, steps, from_noise):
    """Even in log-SNR from -6, or the schedule's own end, to 7, between the ends 1 and 0."""
    lowest = jnp.maximum(process.log_snr(jnp.ones(())), -6.0)
    inner = process.time_at(jnp.linspace(lowest, 7.0, steps - from_noise))
    ends = (jnp.ones(1), inner, jnp.zeros(1))
    return jnp.concatenate(ends if from_noise else ends[1:])


@functools.cache
def data():
    """Samples of both sets of data, [2 COUNT, 2]: where x_1 comes from."""
    keys = jax.random.split(jax.random.key(0))
    return jnp.concatenate([GAUSSIAN.draw(keys[0], COUNT), MIXTURE.draw(keys[1], COUNT)])


@functools.cache
def samples(label):
    """What the sampler makes of exact samples of x at its first time: [schedule, 2 COUNT, 2]."""
    case = CASES[label]
    rng = np.random.default_rng(1)
    first = rng.normal(size=(2 * COUNT, 2)).astype(np.float32)
    noise = rng.standard_normal((case.steps, case.sampler.draws, 2 * COUNT, 2), np.float32)

    @jax.jit
    def run(x0, first, noise):
        def of_schedule(number):
            process = dj.Gaussian(Chosen(number))
            times = grid(process, case.steps, case.from_noise)
            x = process.corrupt(x0, first, jnp.full(2 * COUNT, times[0]))
            denoiser, key = case.denoiser(process), jax.random.key(0)
            return dj.sample(key, case.sampler, process, denoiser, x, times, noise=noise)

        return jax.lax.map(of_schedule, jnp.arange(len(SCHEDULES)))

    return np.asarray(run(data(), first, noise))


def standardised_errors(x, mean, covariance):
    """Largest errors of mean and covariance of x, in units of standard deviations and variances."""
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean[None]).T)
    return np.abs(whitened.mean(1)).max(), np.abs(np.cov(whitened) - np.eye(2)).max()


applicable = [
    pytest.param(label, schedule, id=f"{label}-{name(schedule)}")
    for label, case in CASES.items()
    for schedule in SCHEDULES
    if name(schedule) not in case.without
]


@pytest.mark.parametrize(("label", "schedule"), applicable)
def test_samples_are_the_datas(label, schedule):
    allowance = CASES[label].allowance
    gaussian, mixture = np.split(samples(label)[SCHEDULES.index(schedule)], 2)
    mean_error, covariance_error = standardised_errors(gaussian, GAUSSIAN.mean, GAUSSIAN.covariance)
    assert mean_error < 5 / np.sqrt(COUNT) + allowance
    assert covariance_error < 5 * np.sqrt(2 / COUNT) + allowance

    right = mixture[:, 0] > 0
    assert abs(right.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / COUNT) + allowance
    for mode, chosen in zip(MODES, (mixture[~right], mixture[right]), strict=True):
        errors = standardised_errors(chosen, mode.mean, np.diag(mode.variance))
        assert errors[0] < 5 / np.sqrt(len(chosen)) + allowance
        assert errors[1] < 5 * np.sqrt(2 / len(chosen)) + allowance


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_sde_ode_and_langevin_make_one_distribution(schedule):
    """The distribution functions of each coordinate, pairwise and with the data's.

    Once in 10,000 times two sets of 4,000 would differ by 0.05; these start from the same x.
    """
    families = ("heun", "euler_maruyama", "edm", "langevin", "ddim_and_langevin")
    sets = [samples(label)[SCHEDULES.index(schedule)] for label in families]
    sets = np.stack([*sets, np.asarray(data())]).reshape(-1, 2, COUNT, 2)
    ordered = np.sort(sets, axis=2)
    for which in np.ndindex(2, 2):
        one = ordered[:, which[0], :, which[1]]
        at = np.sort(one.ravel())
        below = np.stack([np.searchsorted(row, at, side="right") for row in one]) / COUNT
        assert np.abs(below[:, None] - below[None]).max() < 0.05
