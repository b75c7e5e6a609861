"""The denoising loss: its minimum is known, every parameterization agrees on it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.models import ClassLabels
from tests import oracle
from tests.oracle import PARAMETERIZATIONS, Independent, name

SHAPE = (2, 2, 1)
DATA = Independent(
    np.array([[0.5, -1.0], [0.0, 2.0]])[..., None], np.array([[0.2, 1.0], [0.5, 3.0]])[..., None]
)
PROCESS = dj.Gaussian(dj.Cosine())
NAMES = [name(p) for p in PARAMETERIZATIONS]


def optimal(process, parameterization):
    """The oracle as a network with four parameters, optimal where all are 0.

    They add a constant, a multiple of x, one of the answer and one of t to it.
    """
    network = oracle.network(DATA, process, parameterization)

    def apply(params, x, t, condition, *, key=None):
        y = network(x, t)
        return y + params[0] + params[1] * x + params[2] * y + params[3] * t[:, None, None, None]

    return apply


def repeated(loss, repeats=32, count=512):
    """(loss, gradient) of independent batches: [repeats], [repeats 4]."""

    @jax.jit
    def run(params, key):
        def one(key):
            key_data, key_loss = jax.random.split(key)
            batch = {"image": DATA.draw(key_data, count)}

            return jax.value_and_grad(lambda params: loss(params, (), key_loss, batch)[0])(params)

        return jax.lax.map(one, jax.random.split(key, repeats))

    return run


def minimum(process):
    """E_t of the mean posterior variance of the noise, Var[noise | x_t] = 1 - sigma^2 / S."""
    t = jnp.asarray((np.arange(2000) + 0.5) / 2000)
    alpha, sigma = (np.asarray(v) for v in jax.jit(process.scales)(t, t[:, None]))
    return np.mean(1 - sigma**2 / (alpha**2 * DATA.variance.ravel()[None] + sigma**2))


@pytest.mark.parametrize("schedule", [dj.LinearBeta(), dj.Rectified()], ids=name)
def test_the_oracle_reaches_the_analytic_minimum_and_nothing_else_does(schedule):
    process = dj.Gaussian(schedule)
    run = repeated(dj.denoising_loss(optimal(process, dj.V()), process, dj.V()))
    values, gradients = run(jnp.zeros(4), jax.random.key(0))
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - minimum(process)) < 5 * error
    # A stationary point: every gradient is 0 within 5 sigma.
    spread = gradients.std(0) / np.sqrt(len(gradients))
    assert np.all(np.abs(gradients.mean(0)) < 5 * spread)
    for direction in np.eye(4, dtype=np.float32):
        for sign in (-1, 1):
            perturbed, _ = run(jnp.asarray(sign * 0.5 * direction), jax.random.key(0))
            worse = perturbed - values  # the same draws
            assert worse.mean() > 5 * worse.std() / np.sqrt(len(worse))


@functools.cache
def one_batch():
    """(loss, (metrics, extra)) of the oracle on one batch: {weighting: {parameterization: ...}}."""

    @jax.jit
    def run(batch):
        def of(weighting, parameterization):
            apply = optimal(PROCESS, parameterization)
            loss = dj.denoising_loss(apply, PROCESS, parameterization, weighting=weighting)
            return loss(jnp.zeros(4), (), jax.random.key(0), batch)

        return {
            weighting.__name__: {name(p): of(weighting, p) for p in PARAMETERIZATIONS}
            for weighting in (dj.simple, dj.constant)
        }

    return run({"image": oracle.normal(0, 64, *SHAPE)})


def test_simple_is_one_loss_for_every_parameterization():
    """The same denoiser, in five languages: L_simple is the same, the plain loss isn't."""
    simple, constant = ([one_batch()[w][p][0] for p in NAMES] for w in ("simple", "constant"))
    np.testing.assert_allclose(simple, simple[0], rtol=1e-4)
    assert len({round(float(v), 3) for v in constant}) == len(constant)


def test_simple_and_constant_agree_where_the_network_predicts_noise():
    simple, constant = (one_batch()[w]["Noise"][0] for w in ("simple", "constant"))
    np.testing.assert_allclose(simple, constant, rtol=1e-6)


def test_metrics_are_the_loss_and_the_plain_error():
    for parameterization in NAMES:
        weighted, plain = (one_batch()[w][parameterization] for w in ("simple", "constant"))
        for value, (metrics, extra) in (weighted, plain):
            assert metrics["loss"] == value
            np.testing.assert_allclose(metrics["mse"], plain[0], rtol=1e-5)
            assert extra == ()


def always(t):
    """A rule of times that always draws t."""
    return lambda key, index, count: jnp.full(index.shape, t)


@pytest.mark.parametrize("schedule", [dj.CosineBeta(), dj.Cosine()], ids=name)
def test_finite_at_both_ends(schedule):
    process = dj.Gaussian(schedule)
    batch = {"image": oracle.normal(0, 4, *SHAPE)}

    @jax.jit
    @jax.vmap
    def run(t):
        def value(params, parameterization):
            apply = optimal(process, parameterization)
            loss = dj.denoising_loss(apply, process, parameterization, times=always(t))
            return loss(params, (), jax.random.key(0), batch)[0]

        params = jnp.full(4, 0.1)
        return {name(p): jax.value_and_grad(value)(params, p) for p in PARAMETERIZATIONS}

    for label, (values, gradients) in run(jnp.array([0.0, 1.0])).items():
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradients)), label


@functools.partial(jax.jit, static_argnames=("condition", "times"))
def seen(key, images, labels=None, **options):
    """What the network is shown, for a batch of images: x, t, condition, key."""
    calls = []

    def apply(params, x, t, condition, *, key=None):
        calls.append((x, t, condition, key))
        return jnp.zeros_like(x)

    batch = {"image": images, "label": labels}
    dj.denoising_loss(apply, PROCESS, dj.V(), **options)({}, (), key, batch)
    (call,) = calls
    return call


COUNT = 2000
BLANK = jnp.zeros((COUNT, *SHAPE))
KEY = jax.random.key(0)


def test_an_example_does_not_depend_on_its_batch():
    images, labels = oracle.normal(0, 8, *SHAPE), jnp.arange(8)
    condition = ClassLabels(8, drop=0.5)
    whole = seen(KEY, images, labels, condition=condition)
    half = seen(KEY, images[:4], labels[:4], condition=condition)
    other = seen(KEY, images.at[4:].set(0.0), labels.at[4:].set(0), condition=condition)
    for found in (half, other):
        for a, b in zip(jax.tree.leaves(found[:3]), jax.tree.leaves(whole[:3]), strict=True):
            np.testing.assert_array_equal(a[:4], b[:4])


def test_noise_and_times_come_from_streams_of_their_own():
    """x_t of a blank image is sigma times unit noise, uncorrelated with the time it has."""
    x, t, condition, key = seen(KEY, BLANK)
    assert condition == dj.Condition()
    assert jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    sigma = np.asarray(PROCESS.schedule.sigma(t))
    noise = np.asarray(x).reshape(COUNT, -1) / sigma[:, None]
    assert np.abs(noise.mean(0)).max() < 5 / np.sqrt(COUNT)
    assert np.abs(np.cov(noise.T) - np.eye(4)).max() < 5 * np.sqrt(2 / COUNT)
    assert np.abs(noise.T @ standard(t) / COUNT).max() < 5 / np.sqrt(COUNT)
    again = seen(jax.random.key(1), BLANK)
    assert np.all(again[1] != t) and np.all(again[0] != x)


def standard(values):
    """Shifted and scaled to mean 0 and variance 1."""
    values = np.asarray(values, np.float64)
    return (values - values.mean()) / values.std()


def test_conditions_are_built_and_dropped_and_times_drawn_by_the_rule():
    labels, drop = jnp.arange(COUNT) % 5, 0.3
    options = {"condition": ClassLabels(5, drop=drop), "times": dj.Uniform(0.4, 0.5)}
    x, t, condition, _ = seen(KEY, BLANK, labels, **options)
    assert t.min() >= 0.4 and t.max() < 0.5
    vector = np.asarray(condition.vector)
    dropped = vector.sum(1) == 0
    assert abs(dropped.mean() - drop) <= 5 * np.sqrt(drop * (1 - drop) / COUNT)
    np.testing.assert_array_equal(vector.argmax(1)[~dropped], np.asarray(labels)[~dropped])
    # Which are dropped has nothing to do with their times or their noise.
    for other in (t, x[:, 0, 0, 0]):
        assert abs(standard(dropped) @ standard(other)) / COUNT < 5 / np.sqrt(COUNT)


def test_trains():
    """Gradient descent on the loss brings a perturbed oracle back."""
    loss = dj.denoising_loss(optimal(PROCESS, dj.V()), PROCESS, dj.V())

    @jax.jit
    def train(params):
        def step(params, key):
            batch = {"image": DATA.draw(key, 256)}
            gradient = jax.grad(lambda p: loss(p, (), key, batch)[0])(params)
            return params - 0.1 * gradient, None

        return jax.lax.scan(step, params, jax.random.split(jax.random.key(0), 300))[0]

    begin = jnp.array([1.0, 0.5, -0.5, 0.5])
    assert np.linalg.norm(train(begin)) < 0.2 * np.linalg.norm(begin)
