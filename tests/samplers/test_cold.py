"""Cold samplers: Algorithm 2 forgives errors that Algorithm 1 keeps."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

SHAPE = (2, 4, 4, 1)
X0, NOISE = oracle.normal(0, *SHAPE), oracle.normal(1, *SHAPE)
KEY = jax.random.key(0)


@dataclass(frozen=True)
class Drift:
    """D(x0, noise, t) = x0 + t noise: linear in t, the same for every x0."""

    random = True

    def __call__(self, x0, noise, t):
        return x0 + t[:, None, None, None] * noise


def run(sampler, process, restore, steps=7):
    """From x_1 of X0, by a restoration x -> x0 that may be wrong."""
    denoiser = dj.denoiser_from(lambda x, t: restore(x), process, dj.X0())
    x = process.corrupt(X0, NOISE, jnp.ones(SHAPE[0]))
    return dj.sample(KEY, sampler, process, denoiser, x, dj.trailing(steps))


def test_improved_is_exact_whatever_is_restored_and_naive_is_not():
    """Section 3.3 of the paper, on a degradation that is linear in t."""
    process = dj.Cold(Drift(), noise=NOISE)
    for wrong in (jnp.zeros_like, lambda x: 3 * jnp.sin(x)):
        improved, naive = (run(s, process, wrong) for s in (dj.ColdImproved(), dj.ColdNaive()))
        np.testing.assert_allclose(improved, X0, atol=1e-5)
        assert np.abs(naive - X0).max() > 0.5


@pytest.mark.parametrize("sampler", [dj.ColdNaive(), dj.ColdImproved()], ids=oracle.name)
@pytest.mark.parametrize(
    "degradation", [dj.GaussianBlur(), dj.Masking(), dj.Pixelate(2), dj.Snow()], ids=oracle.name
)
def test_a_perfect_restoration_ends_at_the_picture(degradation, sampler):
    process = dj.Cold(degradation, noise=NOISE)
    found = run(sampler, process, lambda x: X0)
    np.testing.assert_allclose(found, X0, atol=1e-5)


def test_on_a_gaussian_process_both_are_ddim():
    """Where the prediction explains x, as here, all three formulas are one."""
    process = dj.Gaussian(dj.Cosine())
    samplers = (dj.DDIM(), dj.ColdNaive(), dj.ColdImproved())
    ddim, *cold = (run(sampler, process, jnp.tanh) for sampler in samplers)
    for x in cold:
        np.testing.assert_allclose(x, ddim, atol=1e-4)


def test_a_random_degradation_has_to_know_its_noise():
    process = dj.Cold(dj.Snow())
    with pytest.raises(ValueError, match="its noise isn't known"):
        process.complete(X0, jnp.ones(2), X0)
    known = dataclasses.replace(process, noise=NOISE)
    assert known.complete(X0, jnp.ones(2), X0).noise is NOISE
    with pytest.raises(ValueError, match="x_1 is a degraded picture"):
        process.prior(NOISE)
