"""The classification loss: its minimum is the posterior of the class, at every noise level."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffusion_jax as dj
from diffusion_jax.losses.classification import cross_entropy
from tests import oracle
from tests.oracle import Independent

PROCESS = dj.Gaussian(dj.Cosine())
SHAPE = (1, 2, 1)
VARIANCE = 0.3
MEANS = np.array([[-1.0, 0.2], [0.5, -0.4]]).reshape(2, *SHAPE)
CLASSES = [Independent(mean, np.full(SHAPE, VARIANCE)) for mean in MEANS]
KEY = jax.random.key(0)


def draw(key, count):
    """A batch of two classes, equally often."""
    label = jnp.arange(count) % 2
    values = jnp.stack([c.draw(key, count) for c in CLASSES])
    return {"image": values[label, jnp.arange(count)], "label": label}


def bayes(x, t):
    """log p(x_t | class), the logits of the true posterior."""
    return jnp.stack([c.log_density(PROCESS, x, t) for c in CLASSES], axis=1)


def optimal(params, x, t, condition, *, key=None):
    """Optimal where all four parameters are 0: they turn, shift and scale the log odds."""
    odds = jnp.diff(bayes(x, t), axis=1)[:, 0]
    odds = odds + params[0] + params[1] * x[:, 0, 0, 0] + params[2] * odds + params[3] * t
    return jnp.stack([jnp.zeros_like(odds), odds], axis=1)


def minimum():
    """E_t H(class | x_t). The log odds of the true class are N(d^2/2, d^2), d the means' distance
    at t in standard deviations: H = E_z log(1 + e^-(d^2/2 + d z))."""
    t = jnp.asarray((np.arange(2000) + 0.5) / 2000)
    alpha, sigma = (np.asarray(v)[:, 0] for v in jax.jit(PROCESS.scales)(t, t[:, None]))
    squared = alpha**2 * np.sum((MEANS[1] - MEANS[0]) ** 2) / (alpha**2 * VARIANCE + sigma**2)
    z, weight = np.polynomial.hermite_e.hermegauss(60)
    odds = squared[:, None] / 2 + np.sqrt(squared)[:, None] * z[None]
    return np.mean(np.logaddexp(0, -odds) @ weight / weight.sum())


def test_bayes_reaches_the_entropy_of_the_class_and_nothing_else_does():
    loss = dj.classification_loss(optimal, PROCESS)

    @jax.jit
    def run(params):
        def one(key):
            key_data, key_loss = jax.random.split(key)
            batch = draw(key_data, 512)
            return jax.value_and_grad(lambda p: loss(p, (), key_loss, batch)[0])(params)

        return jax.lax.map(one, jax.random.split(KEY, 32))

    values, gradients = run(jnp.zeros(4))
    assert abs(values.mean() - minimum()) < 5 * values.std() / np.sqrt(len(values))
    spread = gradients.std(0) / np.sqrt(len(gradients))
    assert np.all(np.abs(gradients.mean(0)) < 5 * spread)  # a stationary point
    for direction in np.eye(4, dtype=np.float32):
        for sign in (-1, 1):
            worse = run(jnp.asarray(sign * 0.7 * direction))[0] - values  # the same draws
            assert worse.mean() > 5 * worse.std() / np.sqrt(len(worse))


def test_a_small_network_learns_the_posterior_at_every_noise_level():
    """An MLP of x and t, 400 steps."""

    def apply(params, x, t, condition, *, key=None):
        h = jnp.concatenate([x.reshape(-1, 2), t[:, None], jnp.ones_like(t)[:, None]], axis=1)
        for kernel in params[:-1]:
            h = jnp.tanh(h @ kernel)
        return h @ params[-1]

    loss = dj.classification_loss(apply, PROCESS)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, 400))
    sizes = [(4, 32), (32, 32), (32, 2)]
    params = [oracle.normal(i, *size) / np.sqrt(size[0]) for i, size in enumerate(sizes)]

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            key_data, key_loss = jax.random.split(key)
            batch = draw(key_data, 256)
            gradient = jax.grad(lambda p: loss(p, (), key_loss, batch)[0])(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(KEY, 400)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    @jax.jit
    def errors(params, t):
        """The mean gap of p(class | x_t), of the network and of a coin."""
        times = jnp.full(1000, t)
        x0 = draw(jax.random.key(1), 1000)["image"]
        x = PROCESS.corrupt(x0, jax.random.normal(jax.random.key(2), x0.shape), times)
        true, found = (
            jax.nn.softmax(f(x))
            for f in (lambda x: bayes(x, times), lambda x: apply(params, x, times, dj.Condition()))
        )
        return jnp.abs(found - true).mean(), jnp.abs(0.5 - true).mean()

    trained = train(params)
    for t in (0.05, 0.3, 0.6, 0.95):
        network, coin = errors(trained, t)
        assert network < 0.06, t
        assert network < 0.2 * coin or t > 0.9, t  # there Bayes is a coin


def metrics_of(apply, batch, t):
    """Those of a classifier without parameters, at these times."""
    times = lambda key, index, count: jnp.broadcast_to(t, index.shape)  # noqa: E731
    return jax.jit(dj.classification_loss(apply, PROCESS, times=times))((), (), KEY, batch)[1][0]


def fixed(logits):
    """A classifier that always says so."""
    return lambda params, x, t, condition, *, key=None: jnp.asarray(logits)


def test_known_logits_cost_what_they_should():
    batch = {"image": jnp.zeros((4, *SHAPE)), "label": jnp.array([0, 2, 1, 0])}

    @jax.jit
    def of(logits):
        return dj.classification_loss(fixed(logits), PROCESS)((), 7, KEY, batch)

    value, (metrics, extra) = of(np.zeros((4, 3)))
    np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
    assert extra == 7 and metrics["loss"] == value
    certain = 50 * np.eye(3)[[0, 2, 1, 1]]  # the last is wrong
    value, (metrics, _) = of(certain)
    np.testing.assert_allclose(value, 50 / 4, rtol=1e-6)
    assert metrics["accuracy"] == 0.75
    np.testing.assert_allclose(of(certain + 1000)[0], value, rtol=1e-4)  # no overflow, no shift


def test_a_label_of_no_class_is_not_a_number():
    found = cross_entropy(jnp.zeros((4, 3)), jnp.array([0, 2, 3, -1]))
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, True])


def test_accuracies_by_noise_level():
    """A classifier that is right at t < 1/3, half right to 2/3, and wrong above."""
    count = 3000
    t = (jnp.arange(count) + 0.5) / count
    label = jnp.arange(count) % 2

    def apply(params, x, t, condition, *, key=None):
        said = jnp.where(t < 1 / 3, label, jnp.where(t < 2 / 3, 0, 1 - label))
        return jax.nn.one_hot(said, 2)

    batch = {"image": jnp.zeros((count, *SHAPE)), "label": label}
    metrics = metrics_of(apply, batch, t)
    found = [metrics[f"accuracy_{name}_noise"] for name in ("low", "middle", "high")]
    np.testing.assert_allclose(found, [1.0, 0.5, 0.0], atol=2e-3)
    np.testing.assert_allclose(metrics["accuracy"], 0.5, atol=1e-3)


@pytest.mark.parametrize("t, third", [(0.0, "low"), (1.0, "high")])
def test_thirds_without_examples_repeat_the_whole(t, third):
    batch = {"image": jnp.zeros((4, *SHAPE)), "label": jnp.array([0, 0, 0, 1])}
    metrics = metrics_of(fixed(np.eye(2)[[0, 0, 0, 0]]), batch, t)
    assert metrics[f"accuracy_{third}_noise"] == 0.75
    assert {float(v) for name, v in metrics.items() if name != "loss"} == {0.75}


@functools.partial(jax.jit, static_argnames=("process", "times"))
def seen(images, labels, key=KEY, process=PROCESS, times=dj.Uniform()):
    """What the classifier is shown: x, t, condition."""
    calls = []

    def apply(params, x, t, condition, *, key=None):
        calls.append((x, t, condition))
        assert jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        return jnp.zeros((x.shape[0], 2))

    def condition(key, index, batch):
        return dj.Condition(vector=jnp.stack([index, batch["label"]], axis=1).astype(float))

    loss = dj.classification_loss(apply, process, times=times, condition=condition)
    loss((), (), key, {"image": images, "label": labels})
    (call,) = calls
    return call


def test_an_example_does_not_depend_on_its_batch():
    images, labels = oracle.normal(0, 8, *SHAPE), jnp.arange(8) % 2
    whole, half = seen(images, labels), seen(images[:4], labels[:4])
    other = seen(images.at[4:].set(0.0), labels.at[4:].set(0))
    for found in (half, other):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(a[:4], b[:4])
    np.testing.assert_array_equal(whole[2].vector, np.stack([np.arange(8), labels], axis=1))
    assert np.all(seen(images, labels, jax.random.key(1))[1] != whole[1])


def test_pictures_are_seen_as_noisy_as_their_time_says():
    count = 4000
    x, t, _ = seen(jnp.zeros((count, *SHAPE)), jnp.zeros(count, int))
    sigma = np.asarray(PROCESS.schedule.sigma(t))
    noise = np.asarray(x).reshape(count, -1) / sigma[:, None]
    assert np.abs(noise.mean(0)).max() < 5 / np.sqrt(count)
    assert np.abs(np.cov(noise.T) - np.eye(2)).max() < 5 * np.sqrt(2 / count)


def test_the_classifier_sees_pixels_whatever_the_coordinates():
    """Blurring diffusion corrupts in the DCT basis: at t near 0 the picture is still itself."""
    images = oracle.normal(0, 2, 4, 4, 1)
    process, early = dj.blurring(dj.Cosine()), dj.Uniform(0.0, 1e-4)
    x, _, _ = seen(images, jnp.zeros(2, int), process=process, times=early)
    np.testing.assert_allclose(x, images, atol=5e-3)


@pytest.mark.parametrize(
    ("apply", "batch", "message"),
    [
        (fixed(np.zeros((2, 3))), {}, r'needs batch\["label"\]; the batch has \[\'image\'\]'),
        (fixed(np.zeros(2)), {"label": np.zeros(2, int)}, r"shape \(2,\); .* \[2, classes\]"),
        (fixed(np.zeros((1, 3))), {"label": np.zeros(2, int)}, r"shape \(1, 3\); .* \[2, cl"),
    ],
)
def test_what_does_not_fit_is_refused(apply, batch, message):
    images = {"image": jnp.zeros((2, *SHAPE))}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(dj.classification_loss(apply, PROCESS), (), (), KEY, images | batch)
