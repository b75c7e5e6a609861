"""Stages and chains of them, on Gaussians whose denoisers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.systems import Stage, cascade

PROCESS = dj.Gaussian(dj.Rectified())


def about(params, known, guidance):
    """The exact denoiser of x0 ~ N(params * what is known, 0.3^2)."""
    mean = params * (known["low"] if "low" in known else known["mean"])

    def denoiser(x, t):
        alpha, sigma = PROCESS.scales(t, x)
        mu = jnp.broadcast_to((1.0 if guidance is None else guidance) * mean, x.shape)
        variance = alpha**2 * 0.09 + sigma**2
        whitened = (x - alpha * mu) / variance
        return dj.Prediction(x0=mu + 0.09 * alpha * whitened, noise=sigma * whitened)

    return denoiser


def stage(params=1.0, steps=24, sampler=None):
    sampler = dj.Euler() if sampler is None else sampler
    times = dj.trailing(steps)
    return Stage(about, jnp.asarray(params), PROCESS, (4,), sampler, times)


MEAN = {"mean": jnp.full((512, 1), 0.5)}
INDEX = jnp.arange(512)


def test_a_stage_draws_what_its_denoiser_knows():
    drawn = stage().draw(jax.random.key(0), MEAN, INDEX)
    assert drawn.shape == (512, 4)
    np.testing.assert_allclose(drawn.mean(), 0.5, atol=0.03)
    np.testing.assert_allclose(drawn.std(), 0.3, atol=0.03)


def test_an_example_depends_on_its_number_alone():
    many = stage().draw(jax.random.key(0), MEAN, INDEX)
    few = stage().draw(jax.random.key(0), {"mean": MEAN["mean"][:3]}, jnp.array([5, 100, 7]))
    np.testing.assert_allclose(few, many[jnp.array([5, 100, 7])], atol=1e-6)


def test_inversion_leads_back():
    """The nearer, the more steps: DDIM's error is of first order."""
    x0 = 0.5 + 0.3 * jax.random.normal(jax.random.key(1), (6, 4))
    known, errors = {"mean": MEAN["mean"][:6]}, []
    for steps in (32, 128):
        one = stage(steps=steps, sampler=dj.DDIM())
        x1 = one.invert(x0, known)
        assert abs(float(x1.std()) - 1) < 0.35
        back = one.draw(jax.random.key(9), known, jnp.arange(6), x1)
        errors.append(float(jnp.abs(back - x0).max()))
    assert errors[0] < 0.1 and errors[1] < 0.3 * errors[0]


def test_later_stages_are_told_what_was_drawn():
    first, second = cascade(jax.random.key(0), [stage(), stage(0.5)], MEAN, INDEX)
    slope = np.polyfit(np.clip(first, -1, 1).ravel(), np.asarray(second).ravel(), 1)[0]
    np.testing.assert_allclose(slope, 0.5, atol=0.05)
    # Stages draw noises of their own.
    rest = np.asarray(second) - 0.5 * np.clip(first, -1, 1)
    assert abs(np.corrcoef(rest.ravel(), (np.asarray(first) - 0.5).ravel())[0, 1]) < 0.1


def test_what_a_stage_makes_of_what_it_is_told():
    """By a key of its own, that of the example's number."""

    def tell(key, index, known):
        noise = jax.vmap(lambda k: jax.random.normal(k, (1,)))
        return {"mean": known["mean"] + noise(jax.vmap(jax.random.fold_in, (None, 0))(key, index))}

    plain, told = stage(), dataclasses.replace(stage(), tell=tell)
    key = jax.random.key(3)
    moved = told.draw(key, MEAN, INDEX) - plain.draw(key, MEAN, INDEX)
    np.testing.assert_allclose(moved.mean(1).std(), 1.0, atol=0.1)
    np.testing.assert_allclose(moved.std(1), 0.0, atol=0.02)  # the whole example's


def test_other_numbers_compile_nothing():
    run = jax.jit(lambda one, key, known, index: one.draw(key, known, index))
    one = stage()
    for guidance in (1.0, 2.0):
        for params in (1.0, 3.0):
            changed = dataclasses.replace(
                one, guidance=jnp.asarray(guidance), params=jnp.asarray(params)
            )
            run(changed, jax.random.key(0), MEAN, INDEX)
    assert run._cache_size() == 1


def test_no_stages():
    with pytest.raises(ValueError, match="one stage at least"):
        cascade(jax.random.key(0), [], MEAN, INDEX)
