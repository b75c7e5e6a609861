"""The SDE of a process: its law is the process's, and its reverse and its flow belong to it."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import SCHEDULES, name

every = pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
T = jnp.array([0.0, 1e-5, 0.1, 0.5, 0.9])


@dataclass(frozen=True)
class TwoFrequencies(dj.Gaussian):
    """x of two numbers, the second decaying as the first one's schedule does at t / 2."""

    def scales(self, t, x):
        both = jnp.stack([t, t / 2], axis=1)
        return self.schedule.alpha(both), self.schedule.sigma(both)


@every
def test_steps_of_the_forward_sde_are_the_transition(x64, schedule):
    """The moments that its Euler-Maruyama steps carry along are r and v of q(x_t | x_s)."""
    process, steps = dj.Gaussian(schedule), 20_000
    ends = jnp.asarray([[0.0, 0.1], [0.1, 0.9]])
    one = jnp.ones((2, 1))

    @jax.jit
    def walk():
        dt = (ends[:, 1] - ends[:, 0])[:, None] / steps

        def step(moments, i):
            mean, variance = moments
            t = ends[:, 0] + (i + 0.5) * dt[:, 0]
            f, g = dj.drift(process, t, one), dj.diffusion(process, t, one)
            return ((1 + f * dt) * mean, (1 + f * dt) ** 2 * variance + g**2 * dt), None

        moments, _ = jax.lax.scan(step, (one, 0 * one), jnp.arange(steps))
        return moments, dj.transition(process, ends[:, 0], ends[:, 1], one)

    for found, exact in zip(*walk(), strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_closed_forms():
    """Variance preserving: g^2 = -2 f = beta(t), T times the table's. Rectified: -1/(1 - t)."""
    one = jnp.ones((5, 1))
    table = dj.Gaussian(dj.LinearBeta())
    f, g = dj.drift(table, T, one), dj.diffusion(table, T, one)
    np.testing.assert_allclose(g**2, -2 * f, rtol=1e-6)
    expected = -1000 * np.log1p(-dj.LinearBeta().betas()[[0, 0, 100, 500, 900]])
    np.testing.assert_allclose(g[:, 0] ** 2, expected, rtol=1e-5)
    line = dj.Gaussian(dj.Rectified())
    np.testing.assert_allclose(dj.drift(line, T, one)[:, 0], -1 / (1 - T), rtol=1e-5)
    np.testing.assert_allclose(
        dj.diffusion(line, T, one)[:, 0] ** 2, 2 * T / (1 - T), rtol=1e-5, atol=1e-5
    )


def test_each_frequency_has_its_own():
    process, x = TwoFrequencies(dj.Cosine()), oracle.normal(0, 3, 2)
    t = jnp.array([0.2, 0.5, 0.8])
    alone = dj.Gaussian(dj.Cosine())
    for function, power in ((dj.drift, 1), (dj.diffusion, 0.5)):
        found = function(process, t, x)
        fast, slow = (jnp.broadcast_to(function(alone, v, x), x.shape) for v in (t, t / 2))
        np.testing.assert_allclose(found[:, 0], fast[:, 0], rtol=1e-5)
        # d/dt of something at t / 2 is half of its own derivative; g is a square root of one.
        np.testing.assert_allclose(found[:, 1], 0.5**power * slow[:, 1], rtol=1e-5)


@every
def test_flow_is_the_velocity_of_the_exact_solution(x64, schedule):
    """For Gaussian data, d/ds of the closed-form flow at s = t; and the mean of both drifts."""
    process, data = dj.Gaussian(schedule), oracle.correlated(3)
    x, t = oracle.normal(0, 3, 3).astype(jnp.float64), jnp.array([0.1, 0.4, 0.8])

    @jax.jit
    def run():
        prediction = data.posterior_mean(process, x, t)
        flow = functools.partial(data.flow, process, x, t)
        _, velocity = jax.jvp(flow, (t,), (jnp.ones_like(t),))
        both = dj.drift(process, t, x) + dj.reverse_drift(process, t, x, prediction)
        return velocity, dj.probability_flow(process, t, x, prediction), 0.5 * both

    velocity, found, mean = run()
    np.testing.assert_allclose(found, velocity, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(mean, velocity, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("schedule", [dj.LinearBeta(), dj.Cosine(), dj.Rectified()], ids=name)
def test_ends_are_finite(schedule):
    process, x = dj.Gaussian(schedule), oracle.normal(0, 4, 2)
    prediction = dj.Prediction(x, x)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=0)
    def total(t):
        ours = (
            dj.drift(process, t, x),
            dj.diffusion(process, t, x),
            dj.reverse_drift(process, t, x, prediction),
            dj.probability_flow(process, t, x, prediction),
        )
        return sum(jnp.sum(v) for v in ours)

    for found in total(jnp.array([0.0, 1e-6, 1 - 1e-6, 1.0])):
        assert np.all(np.isfinite(found))
