"""A codec's terms: the KL against an integral, who learns from which term, codes that come back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.likelihood.pixels import bits_per_dimension
from diffusion_jax.losses import autoencoding as ae
from diffusion_jax.models.autoencoder import Posterior, nearest_codes

KEY = jax.random.key(0)


@pytest.mark.parametrize("mean, log_variance", [(0.0, 0.0), (1.5, -2.0), (-0.3, 1.0)])
def test_the_kl_is_the_integral(mean, log_variance):
    z, dz = np.linspace(-15, 15, 30_001, retstep=True)
    log_q = jax.scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance))
    integral = np.sum(np.exp(log_q) * (log_q - jax.scipy.stats.norm.logpdf(z))) * dz
    both = jnp.array([[mean, mean]]), jnp.array([[log_variance, log_variance]])
    np.testing.assert_allclose(ae.kl_to_standard_normal(*both), 2 * integral, atol=1e-4)


def test_the_kl_sums_over_whatever_shape_and_keeps_examples_apart():
    mean = jax.random.normal(KEY, (3, 2, 2, 4)).at[1].set(0.0)
    kl = ae.kl_to_standard_normal(mean, jnp.zeros_like(mean))
    assert kl.shape == (3,) and kl[1] == 0
    np.testing.assert_allclose(kl, 0.5 * jnp.sum(mean**2, (1, 2, 3)), rtol=1e-5)


def linear(params, x):
    return Posterior(params["a"] * x, jnp.full_like(x, params["s"]))


def likelihood(params, z, x):
    return jax.scipy.stats.norm.logpdf(x, params["b"] * z, jnp.exp(params["t"])).sum(1)


def test_the_bound_holds_and_is_tight_at_the_true_posterior():
    """x = b z + t noise is Gaussian: its log-density is known, and so is its posterior."""
    b, t = 0.8, 0.5
    var = b * b + t * t
    exact = {"a": b / var, "s": np.log(t * t / var), "b": b, "t": np.log(t)}
    x = np.sqrt(var) * jax.random.normal(KEY, (20_000, 1))
    entropy = -jnp.mean(jax.scipy.stats.norm.logpdf(x, 0.0, np.sqrt(var)))
    truth = bits_per_dimension(entropy, 1)
    loss = ae.bound_loss(linear, likelihood)
    tight, (metrics, _) = loss(exact, (), KEY, {"image": x})
    np.testing.assert_allclose(tight, truth, atol=0.02)
    np.testing.assert_allclose(metrics["distortion"] + metrics["rate"], metrics["bound"], rtol=1e-6)
    for name, value in {"a": 0.2, "s": 0.5}.items():
        assert loss({**exact, name: value}, (), KEY, {"image": x})[0] > truth + 0.05


def test_beta_weighs_the_rate_alone_and_the_bound_does_not_know_it():
    params = {"a": 0.7, "s": -1.0, "b": 0.8, "t": -0.5}
    batch = {"image": jax.random.normal(KEY, (50, 3))}
    one, (m1, _) = ae.bound_loss(linear, likelihood)(params, (), KEY, batch)
    four, (m4, _) = ae.bound_loss(linear, likelihood, beta=4.0)(params, (), KEY, batch)
    np.testing.assert_allclose(four - one, 3 * m1["rate"], rtol=1e-5)
    assert m1["bound"] == m4["bound"]
    np.testing.assert_allclose(m1["rate"] * 3 * np.log(2), m1["kl_nats"], rtol=1e-5)


def test_codes_and_encoder_learn_from_their_own_term():
    z = jax.random.normal(KEY, (2, 4, 4, 3))
    vectors = z + 0.1
    codebook, commitment = (
        jax.grad(lambda z, e, i=i: ae.quantisation(z, e)[i], argnums=(0, 1))(z, vectors)
        for i in (0, 1)
    )
    assert not np.any(codebook[0]) and np.all(codebook[1] > 0)  # towards z, which is less
    assert not np.any(commitment[1]) and np.all(commitment[0] < 0)


def test_usage_runs_to_what_is_drawn():
    codes = jnp.array([[0, 0, 0, 1]])
    usage = ae.init_usage(4)
    for _ in range(100):
        usage = ae.update_usage(usage, codes, decay=0.9)
    np.testing.assert_allclose(usage, [3.0, 1.0, 0.0, 0.0], atol=1e-3)
    metrics = ae.usage_metrics(usage)
    np.testing.assert_allclose(metrics["codes_used"], 0.5)
    p = np.array([0.75, 0.25])
    np.testing.assert_allclose(metrics["perplexity"], np.exp(-(p * np.log(p)).sum()), rtol=1e-3)


def test_revival_moves_lost_codes_alone():
    codebook = jax.random.normal(KEY, (4, 2))
    z = jax.random.normal(jax.random.key(1), (1, 3, 3, 2))
    usage = jnp.array([1.0, 0.0, 2.0, 0.001])
    moved, answers = jax.grad(ae.revival, argnums=(0, 1))(codebook, z, usage)
    np.testing.assert_array_equal(np.any(moved, axis=1), [False, True, False, True])
    assert not np.any(answers)
    distances = jnp.sum((codebook[:, None] - z.reshape(-1, 2)[None]) ** 2, -1)
    after = codebook - 0.1 * moved
    for k in (1, 3):  # nearer to the answer that was nearest
        place = z.reshape(-1, 2)[distances[k].argmin()]
        assert jnp.sum((after[k] - place) ** 2) < distances[k].min()
    assert ae.revival(codebook, z, jnp.ones(4)) == 0


@functools.partial(jax.jit, static_argnums=0)
def fitted(weight):
    """The share of 16 codes in use for answers around 16 places, far from where codes begin."""
    places = 2 * jax.random.normal(jax.random.key(2), (16, 2))
    optimizer = optax.adam(0.02)

    def step(carry, key):
        codebook, state, usage = carry
        z = places[jax.random.randint(key, (64,), 0, 16)] + 0.05 * jax.random.normal(key, (64, 2))

        def loss(codebook):
            codes = nearest_codes(z, codebook)
            new = ae.update_usage(usage, codes, decay=0.9)
            term = ae.quantisation(z, codebook[codes])[0]
            return term + weight * ae.revival(codebook, z, new), new

        grads, usage = jax.grad(loss, has_aux=True)(codebook)
        updates, state = optimizer.update(grads, state)
        return (codebook + updates, state, usage), ()

    codebook = 5 + 0.1 * jax.random.normal(jax.random.key(3), (16, 2))
    start = (codebook, optimizer.init(codebook), ae.init_usage(16))
    (_, _, usage), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(4), 1000))
    return ae.usage_metrics(usage)["codes_used"]


def test_lost_codes_come_back():
    without, revived = float(fitted(0.0)), float(fitted(1.0))
    assert without < 0.5 and revived > without + 0.2, (without, revived)


def test_perceptual_distances_are_of_directions_and_weighed():
    f = jax.random.normal(KEY, (2, 4, 4, 8))
    g = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    apart = ae.perceptual_distance([f], [g])
    assert apart.shape == (2,) and np.all(apart > 0.5)
    np.testing.assert_allclose(ae.perceptual_distance([3 * f], [g]), apart, rtol=1e-5)
    np.testing.assert_allclose(ae.perceptual_distance([f], [-f]), 4.0, rtol=1e-5)  # |2 f|^2
    np.testing.assert_allclose(ae.perceptual_distance([f, f], [g, f]), apart, rtol=1e-5)
    halves = [jnp.where(jnp.arange(8) < 4, 1.0, 0.0)], [jnp.where(jnp.arange(8) < 4, 0.0, 1.0)]
    parts = sum(ae.perceptual_distance([f], [g], w) for w in halves)
    np.testing.assert_allclose(parts, apart, rtol=1e-5)
    gradient = jax.grad(lambda x: ae.perceptual_distance([x], [g]).sum())(jnp.zeros_like(f))
    assert np.all(np.isfinite(gradient))
    with pytest.raises(ValueError, match="features of 1 and 2 layers"):
        ae.perceptual_distance([f], [g, g])
