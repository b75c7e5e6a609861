"""Every guidance with every sampler: they compose, and nothing turns infinite.

The network answers with a learned variance, so that it has to pass through every guidance. One
row of SAMPLERS adds a sampler, one line of `guided` a guidance.

To compile every pair would take minutes. The guidances are compiled once, all of them on their
share of one batch, and samplers run operation by operation, where only their shapes are compiled.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax import samplers
from tests.oracle import normal

PROCESS = dj.Gaussian(dj.Cosine())
BATCH = 3
WEIGHTS = normal(0, 2, 4)
CONDITIONS = [dj.Condition(vector=normal(seed, BATCH, 2)) for seed in (1, 2)]
NULL = dj.Condition(vector=jnp.zeros((1, 2)))
LEARNED = dj.LearnedVariance(dj.V())
KNOWN, MASK = normal(3, BATCH, 2), jnp.array([[1.0, 0.0]])


def network(x, t, condition):
    """v and a variance of two pixels each."""
    both = jnp.concatenate([x, 0.5 * x], axis=1)
    return jnp.tanh(both + t[:, None] + condition.vector @ WEIGHTS)


def conditioned(condition):
    def with_condition(x, t):
        vector = jnp.broadcast_to(condition.vector, (len(x), 2))
        return network(x, t, dj.Condition(vector=vector))

    return dj.denoiser_from(with_condition, PROCESS, LEARNED)


def likelihood(pixels, t):
    return -jnp.sum((pixels - 0.5) ** 2, axis=1)


def guided(scale):
    """Every guidance by name, of this scale."""
    first, second = (conditioned(c) for c in CONDITIONS)
    null = conditioned(NULL)

    def fused(scale, combine=dj.extrapolate):
        made = dj.classifier_free_fused(network, CONDITIONS[0], NULL, scale, combine=combine)
        return dj.denoiser_from(made, PROCESS, LEARNED)

    several = dj.composed_fused(network, CONDITIONS, NULL, (scale, -0.3))
    return {
        "none": first,
        "free": dj.classifier_free(first, null, scale),
        "fused": fused(scale),
        "rescaled": fused(scale, dj.rescaled(0.7)),
        "interval": fused(dj.within(scale, 0.2, 0.6)),
        "composed": dj.composed([first, second], null, (scale, -0.3)),
        "composed_fused": dj.denoiser_from(several, PROCESS, LEARNED),
        "classifier": dj.classifier_guided(first, likelihood, PROCESS, scale),
        "guided_by": dj.guided_by(first, likelihood, PROCESS, scale),
        "clip": dj.clip(fused(scale), PROCESS),
        "threshold": dj.dynamic_threshold(fused(scale), PROCESS, 0.9),
    }


GUIDANCES = tuple(guided(2.0))
SAMPLERS = (
    dj.DDIM(),
    dj.Ancestral(dj.learned_range),
    dj.MeanShift(dj.Ancestral(), jax.tree_util.Partial(likelihood), 0.5),
    dj.Euler(),
    dj.Heun(),
    dj.DPMSolverPP(2),
    dj.DPMSolverPP(3, dj.exact, eta=1.0),
    dj.DPMSolverPPSingle(2),
    dj.UniPC(2),
    dj.DEIS(3),
    dj.PNDM(),
    dj.PLMS(),
    dj.Adaptive(rtol=0.1, atol=0.1),
    dj.Churn(s_churn=1.0),
    dj.EulerMaruyama(),
    dj.Langevin(steps=2),
    dj.PredictorCorrector(dj.DDIM(), dj.Langevin(dj.SignalToNoise(), steps=1)),
    dj.Consistency(),
    dj.Momentum(),
    dj.Heat(),
    dj.ColdNaive(),
    dj.ColdImproved(),
)


def test_no_sampler_was_forgotten():
    every = {v for v in vars(samplers).values() if inspect.isclass(v) and hasattr(v, "step")}
    assert {type(s) for s in SAMPLERS} == every


def of_each(v):
    """v for each guidance: examples, the last axis but one, again and again."""
    return jnp.concatenate([v] * len(GUIDANCES), axis=-2)


@jax.jit
def with_every_guidance(x, t):
    """Every guidance on its share of the batch [g b ...]."""
    shares = (jnp.split(v, len(GUIDANCES)) for v in (x, t))
    parts = [f(*share) for f, *share in zip(guided(2.0).values(), *shares, strict=True)]
    return dj.Prediction(*(jnp.concatenate(v) for v in zip(*parts, strict=True)))


@jax.jit
def with_one(x, t):
    condition = dj.Condition(vector=of_each(CONDITIONS[0].vector))
    fused = dj.classifier_free_fused(network, condition, NULL, 2.0)
    return dj.denoiser_from(fused, PROCESS, LEARNED)(x, t)


def run(sampler, denoiser, times):
    """A sample with each guidance [g b d], all from the same x and noise."""

    def compiled(x, t):
        with jax.disable_jit(False):
            return denoiser(x, t)

    draws, key = sampler.draws, jax.random.key(0)
    noise = jnp.stack([normal(5 + i, draws, BATCH, 2) for i in range(len(times) - 1)])
    x, noise = of_each(normal(4, BATCH, 2)), of_each(noise)
    # diffrax takes long operation by operation.
    with jax.disable_jit("Adaptive" not in str(sampler)):
        found = dj.sample(key, sampler, PROCESS, compiled, x, times, noise=noise)
    return np.asarray(found).reshape(len(GUIDANCES), BATCH, 2)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_every_guidance_goes_with_every_sampler(sampler):
    found = run(sampler, with_every_guidance, jnp.array([0.9, 0.5, 0.3, 0.0]))
    assert np.all(np.isfinite(found))
    moved = np.abs(found - found[:1]).max(axis=(1, 2))
    assert np.all(moved[1:] > 1e-3), dict(zip(GUIDANCES, moved, strict=True))
    by_name = dict(zip(GUIDANCES, found, strict=True))
    np.testing.assert_allclose(by_name["free"], by_name["fused"], atol=1e-3)
    np.testing.assert_allclose(by_name["composed"], by_name["composed_fused"], atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_every_sampler_inpaints_with_guidance(sampler):
    """Known pixels bit for bit, through a rise; the steps down are Replacement's."""
    known, times = of_each(KNOWN), jnp.array([0.9, 0.5, 0.7, 0.0])
    x = run(dj.RePaint(sampler, known, MASK), with_one, times)
    assert np.all(np.isfinite(x))
    expected = np.asarray(known).reshape(x.shape)
    np.testing.assert_array_equal(x[..., 0].view("u4"), expected[..., 0].view("u4"))
    assert np.all(x[..., 1] != expected[..., 1])
