"""CLIP guidance with encoders whose gradient is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import name

SHAPE = (4, 4, 4, 1)
SCALE = 3.0


def double(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def linear(weights, pixels):
    return pixels.reshape(len(pixels), -1) @ weights


def unit(rows):
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def case():
    weights, text = double(0, 16, 5), unit(double(1, 5))
    return functools.partial(linear, weights), text, (weights @ text).reshape(1, 4, 4, 1)


PROCESSES = [dj.Gaussian(dj.Cosine()), dj.Gaussian(dj.VE()), dj.blurring()]
TIMES = jnp.array([0.125, 0.375, 0.75, 0.875])


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_a_linear_encoder_of_noised_pictures_shifts_the_noise_by_its_weights(process, x64):
    """The gradient of <W x, g> is W^T g everywhere: noise' = noise - s sigma W^T g."""
    (encode, text, gradient), t = case(), jnp.array(TIMES.tolist())  # in double precision
    data = oracle.Independent(np.zeros(SHAPE[1:]), np.ones(SHAPE[1:]))
    plain = functools.partial(data.posterior_mean, process)

    @jax.jit
    def both(x):
        guided = dj.noised_clip_guided(
            plain, lambda pixels, t: encode(pixels) * t[:, None], text, process, SCALE
        )(x, t)
        _, sigma = process.scales(t, x)
        told = t[:, None, None, None] * process.encode(jnp.broadcast_to(gradient, SHAPE))
        explained = process.corrupt(guided.x0, guided.noise, t)
        return guided.noise, plain(x, t).noise - SCALE * sigma * told, explained

    x = double(2, *SHAPE)
    noise, expected, explained = both(x)
    np.testing.assert_allclose(noise, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(explained, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_seen_through_a_linear_denoiser_the_gradient_is_its_slope_times_the_weights(process, x64):
    """For N(0, I) data x0 = alpha x / (alpha^2 + sigma^2), whether x0 is clipped or not."""
    (encode, text, gradient), t = case(), jnp.array(TIMES.tolist())  # in double precision
    data = oracle.Independent(np.zeros(SHAPE[1:]), np.ones(SHAPE[1:]))
    plain = functools.partial(data.posterior_mean, process)

    @jax.jit
    def both(x):
        guided = dj.clip_guided(plain, encode, text, process, SCALE)(x, t)
        alpha, sigma = process.scales(t, x)
        slope = alpha / (alpha**2 + sigma**2)
        seen = slope * process.encode(jnp.broadcast_to(gradient, SHAPE))
        return guided.noise, plain(x, t).noise - SCALE * sigma * seen, plain(x, t).x0

    noise, expected, x0 = both(3 * double(2, *SHAPE))
    assert np.abs(x0).max() > 1.5
    np.testing.assert_allclose(noise, expected, rtol=1e-9, atol=1e-12)


def test_the_encoder_sees_clipped_pictures_and_the_text_of_each_example():
    texts, x = unit(double(3, 4, 5)), 3 * double(4, *SHAPE)
    encode = functools.partial(linear, double(0, 16, 5))
    seen = dj.on_clipped(dj.clip_similarity(encode, texts))(x, TIMES)
    expected = (encode(jnp.clip(x, -1, 1)) * texts).sum(1)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    one = dj.clip_similarity(encode, texts[2])(x, TIMES)
    np.testing.assert_allclose(one[2], (encode(x)[2] * texts[2]).sum(), atol=1e-5)


def test_a_cosine_pulls_to_its_text_and_the_scale_is_how_far():
    """With unit embeddings: guided estimates are nearer, more so at larger scales; 0 is off."""
    process = dj.Gaussian(dj.Cosine())
    weights, text = double(0, 16, 5), unit(double(1, 5))

    def encode(pixels):
        return unit(linear(weights, pixels))

    data = oracle.Independent(np.zeros(SHAPE[1:]), np.full(SHAPE[1:], 0.1))
    plain, x = functools.partial(data.posterior_mean, process), double(5, *SHAPE)

    @jax.jit
    def similarity(scale):
        found = dj.clip_guided(plain, encode, text, process, scale)(x, TIMES)
        return dj.clip_similarity(encode, text)(found.x0, TIMES), found.x0

    off, little, more = (similarity(s) for s in (0.0, 0.05, 0.2))
    np.testing.assert_allclose(off[1], plain(x, TIMES).x0, rtol=1e-6)
    assert np.all(little[0] > off[0]) and np.all(more[0] > little[0])


def test_sampling_with_guidance_raises_the_similarity_and_compiles_once():
    process = dj.Gaussian(dj.LinearVP())
    encode, text = functools.partial(linear, double(0, 16, 5)), unit(double(1, 5))
    data = oracle.Independent(np.zeros(SHAPE[1:]), np.full(SHAPE[1:], 0.1))
    plain = functools.partial(data.posterior_mean, process)
    traces = []

    @jax.jit
    def run(text, scale):
        traces.append(())
        denoiser = dj.clip_guided(plain, encode, text, process, scale)
        x = process.prior(double(6, *SHAPE))
        times = jnp.linspace(0.99, 0.01, 20)
        x = dj.sample(jax.random.key(0), dj.DDIM(), process, denoiser, x, times)
        return dj.clip_similarity(encode, text)(x, TIMES)

    before, after = run(text, 0.0), run(text, 1.0)
    assert np.all(after > before + 0.1) and np.all(run(-text, 1.0) > -before + 0.1)
    assert len(traces) == 1


def test_texts_that_exclude_one_another_are_classes():
    """The softmax over texts, as the module's docstring says: what all texts share cancels."""
    texts = unit(double(7, 3, 5))
    encode = functools.partial(linear, double(0, 16, 5))
    x, label = 0.1 * double(8, *SHAPE), jnp.array([0, 1, 2, 0])

    def gradient(texts):
        log_p = dj.class_log_probability(lambda pixels, t: encode(pixels) @ texts.T, label)
        return jax.grad(lambda x: log_p(x, TIMES).sum())(x)

    np.testing.assert_allclose(gradient(texts), gradient(texts + 1.0), atol=1e-4)
    assert np.abs(gradient(texts)).max() > 0.1


def test_embeddings_that_do_not_agree_are_refused():
    encode = functools.partial(linear, double(0, 16, 5))
    x = double(4, *SHAPE)
    for text in (jnp.ones(4), jnp.ones((3, 5)), jnp.ones((1, 5))):
        with pytest.raises(ValueError, match=r"shape \(4, 5\) and the text's"):
            dj.clip_similarity(encode, text)(x, TIMES)
    with pytest.raises(ValueError, match=r"must be \[b d\]"):
        dj.clip_similarity(lambda x: encode(x).sum(1), jnp.ones(5))(x, TIMES)
