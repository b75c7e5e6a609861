"""A new guidance scale, interval, eta, label, seed, strength or mask compiles nothing."""

import jax
import jax.numpy as jnp
import numpy as np

import diffusion_jax as dj
from diffusion_jax.models import ClassLabels
from tests.oracle import normal

LABELS = ClassLabels(3)
WEIGHTS = normal(9, 3, 2)


def network(x, t, condition):
    return jnp.tanh(x + condition.vector @ WEIGHTS) * t[:, None]


def make(process, traces):
    @jax.jit
    def generate(key, sampler, scale, label):
        traces.append(1)
        fused = dj.classifier_free_fused(
            network, LABELS.condition({"label": label}), LABELS.null({"label": label}), scale
        )
        denoiser = dj.clip(dj.denoiser_from(fused, process, dj.V()), process)
        x = dj.draw_prior(key, process, (label.shape[0], 2))
        return dj.sample(key, sampler, process, denoiser, x, dj.trailing(5))

    return generate


def test_new_values_compile_nothing_and_change_the_answer():
    traces = []
    generate = make(dj.Gaussian(dj.Cosine()), traces)
    first = {
        "key": jax.random.key(0),
        "sampler": dj.DDIM(0.5),
        "scale": 2.0,
        "label": jnp.array([0, 1]),
    }
    answer = generate(**first)
    others = {
        "key": jax.random.key(1),
        "sampler": dj.DDIM(0.9),
        "scale": 3.5,
        "label": jnp.array([2, 0]),
    }
    for name, value in others.items():
        changed = generate(**{**first, name: value})
        assert np.abs(changed - answer).max() > 1e-4, name
    assert generate._cache_size() == 1
    assert len(traces) == 1


def test_new_guidance_and_edits_compile_nothing_and_change_the_answer():
    process, traces = dj.Gaussian(dj.Cosine()), []

    def log_p(pixels, t):
        return -jnp.sum(pixels**2, axis=1)

    @jax.jit
    def edit(sampler, gamma, phi, low, high, push, strength, known, mask):
        traces.append(1)
        labels = {"label": jnp.array([0, 1])}
        condition, null = LABELS.condition(labels), LABELS.null(labels)
        scale, rule = dj.within(gamma, low, high), dj.rescaled(phi)
        fused = dj.classifier_free_fused(network, condition, null, scale, combine=rule)
        denoiser = dj.denoiser_from(fused, process, dj.V())
        denoiser = dj.classifier_guided(denoiser, log_p, process, push)
        denoiser = dj.guided_by(denoiser, log_p, process, push)
        x = dj.renoise(jax.random.key(0), process, known, strength)
        times = strength * dj.repaint_grid(dj.trailing(4), 2, 2)
        sampler = dj.RePaint(sampler, known, mask)
        return dj.sample(jax.random.key(1), sampler, process, denoiser, x, times)

    first = {
        "sampler": dj.DDIM(0.5),
        "gamma": jnp.array([2.0, 3.0]),
        "phi": 0.3,
        "low": 0.2,
        "high": 0.7,
        "push": 0.1,
        "strength": 0.8,
        "known": normal(0, 2, 2),
        "mask": jnp.array([[1.0, 0.0]]),
    }
    others = {
        "gamma": jnp.array([4.0, -1.0]),
        "phi": 0.9,
        "low": 0.5,
        "high": 0.3,
        "push": 0.3,
        "strength": 0.6,
        "known": normal(1, 2, 2),
        "mask": jnp.array([[0.0, 1.0]]),
    }
    answer = edit(**first)
    for name, value in others.items():
        changed = edit(**{**first, name: value})
        assert np.abs(changed - answer).max() > 1e-4, name
    assert edit._cache_size() == 1
    assert len(traces) == 1


def test_a_longer_walk_is_one_scan():
    """The network is traced as often for 50 steps as for 2: the loop isn't unrolled."""
    counts = []
    process = dj.Gaussian(dj.Cosine())

    for steps in (2, 50):
        traces = []

        def spy(x, t, traces=traces):
            traces.append(1)
            return x

        denoiser = dj.denoiser_from(spy, process, dj.V())
        jax.eval_shape(
            lambda x, n=steps, d=denoiser: dj.sample(
                jax.random.key(0), dj.Ancestral(), process, d, x, dj.trailing(n)
            ),
            jnp.zeros((1, 2)),
        )
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_the_processes_and_parameterizations_are_static_and_compare_by_value():
    run = jax.jit(
        lambda process, parameterization, x: dj.target(
            parameterization, process, x, x, jnp.full(2, 0.5)
        ),
        static_argnums=(0, 1),
    )
    for _ in range(2):
        run(dj.Gaussian(dj.CosineBeta(steps=9)), dj.V(), jnp.ones((2, 2)))
    assert run._cache_size() == 1
    run(dj.Gaussian(dj.CosineBeta(steps=10)), dj.V(), jnp.ones((2, 2)))
    assert run._cache_size() == 2
