"""Importance sampling: a history that is a ring, draws in proportion, no bias."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.losses.importance import entry_probabilities, remember

STEPS = 6
LOSS = np.array([1.0, 4.0, 0.5, 9.0, 0.0, 2.0])  # of each entry
FULL = dj.History(jnp.tile(jnp.asarray(LOSS, jnp.float32)[:, None], (1, 3)), jnp.full(STEPS, 3))


def terms(params, key, batch, t):
    """L_k, known for every entry."""
    values = params * jnp.asarray(LOSS, jnp.float32)[jnp.round(t * STEPS).astype(int) - 1]
    return values, {"mse": values}


def test_uniform_until_every_entry_has_its_history():
    np.testing.assert_allclose(entry_probabilities(dj.init_history(STEPS)), 1 / STEPS, rtol=1e-6)
    almost = FULL._replace(seen=FULL.seen.at[2].set(2))
    np.testing.assert_allclose(entry_probabilities(almost), 1 / STEPS, rtol=1e-6)


def test_then_in_proportion_to_the_root_mean_square():
    p = np.asarray(entry_probabilities(FULL, 0.1))
    np.testing.assert_allclose(p, 0.9 * LOSS / LOSS.sum() + 0.1 / STEPS, rtol=1e-5)
    losses = FULL.losses.at[0].set(jnp.array([3.0, 0.0, 4.0]))
    p = np.asarray(entry_probabilities(dj.History(losses, FULL.seen), 0.0))
    np.testing.assert_allclose(p[0] / p[3], np.sqrt(25 / 3) / 9, rtol=1e-5)


def test_history_keeps_the_latest_losses_of_each_entry():
    """Against queues of Python, with entries that come several times in a batch."""
    rng = np.random.default_rng(0)
    history, update = dj.init_history(4, length=3), jax.jit(remember)
    queues = collections.defaultdict(lambda: collections.deque(maxlen=3))
    for number in range(12):
        k = rng.integers(0, 4 if number % 3 else 2, 8)
        losses = rng.uniform(1, 2, 8).astype(np.float32)
        history = update(history, jnp.asarray(k), jnp.asarray(losses))
        for entry, loss in zip(k, losses, strict=True):
            queues[entry].append(loss)
        for entry in range(4):
            kept = np.sort(np.asarray(history.losses[entry]))
            want = np.sort([*queues[entry]] + [0.0] * (3 - len(queues[entry])))
            np.testing.assert_array_equal(kept, want.astype(np.float32))
    assert int(history.seen.sum()) == 12 * 8


def test_unbiased_and_of_less_variance():
    """The mean over many keys is the mean of all entries, for any history; so is the gradient."""
    loss = dj.importance_sampled(terms, STEPS, uniform_share=0.05)
    batch = {"image": jnp.zeros((8, 1))}

    @jax.jit
    def run(history):
        def one(key):
            return jax.value_and_grad(lambda p: loss(p, history, key, batch)[0])(1.0)

        return jax.vmap(one)(jax.random.split(jax.random.key(0), 2000))

    wrong = dj.History(FULL.losses[::-1], FULL.seen)
    spread = {}
    for label, history in {
        "full": FULL,
        "wrong": wrong,
        "none": dj.History(FULL.losses, jnp.zeros_like(FULL.seen)),
    }.items():
        for values in run(history):
            values = np.asarray(values)
            error = values.std() / np.sqrt(len(values))
            assert abs(values.mean() - LOSS.mean()) < 5 * error, label
            spread[label] = values.std()
    assert spread["full"] < 0.3 * spread["none"]


def test_history_grows_by_the_batch_and_remembers_unweighted_losses():
    loss = dj.importance_sampled(terms, STEPS, draw=dj.Stratified())
    batch = {"image": jnp.zeros((12, 1))}
    value, (metrics, history) = loss(1.0, dj.init_history(STEPS, 2), jax.random.key(0), batch)
    # Stratified and uniform: each entry twice.
    np.testing.assert_array_equal(history.seen, 2)
    np.testing.assert_allclose(history.losses, np.tile(LOSS[:, None], (1, 2)), rtol=1e-6)
    np.testing.assert_allclose(value, LOSS.mean(), rtol=1e-5)
    assert metrics["loss"] == value


def test_a_history_of_another_table_is_refused():
    loss = dj.importance_sampled(terms, STEPS)
    with pytest.raises(ValueError, match="5 rows and the table 6 steps"):
        loss(1.0, dj.init_history(5), jax.random.key(0), {"image": jnp.zeros((2, 1))})
    with pytest.raises(ValueError, match="steps is 0"):
        dj.init_history(0)
