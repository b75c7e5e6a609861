"""Guidance: linear between two predictions, one call instead of two, conditions dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import normal

PROCESS = dj.Gaussian(dj.Cosine())
T = jnp.array([0.1, 0.5, 0.9])
X = normal(0, 3, 4)
CONDITION = dj.Condition(vector=normal(1, 3, 2))
NULL = dj.Condition(vector=jnp.zeros((1, 2)))
WEIGHTS = normal(2, 2, 4)


def network(x, t, condition):
    return jnp.tanh(x + t[:, None] + condition.vector @ WEIGHTS)


def denoiser(condition):
    vector = jnp.broadcast_to(condition.vector, (3, 2))
    return dj.denoiser_from(
        lambda x, t: network(x, t, dj.Condition(vector=vector)), PROCESS, dj.V()
    )


def guided(scale):
    return dj.classifier_free(denoiser(CONDITION), denoiser(NULL), scale)(X, T)


def close(a, b):
    np.testing.assert_allclose(a.x0, b.x0, atol=2e-6)
    np.testing.assert_allclose(a.noise, b.noise, atol=2e-6)


def test_scale_0_is_unconditional_and_1_conditional():
    conditional, unconditional = denoiser(CONDITION)(X, T), denoiser(NULL)(X, T)
    close(guided(0.0), unconditional)
    close(guided(1.0), conditional)
    assert np.abs(conditional.x0 - unconditional.x0).max() > 0.1


@pytest.mark.parametrize("scale", [-1.0, 2.0, 7.5])
def test_extrapolates_on_a_line(scale):
    """guided(scale) - guided(0) is `scale` times guided(1) - guided(0)."""
    zero, one, far = guided(0.0), guided(1.0), guided(scale)
    for z, o, f in zip(zero[:2], one[:2], far[:2], strict=True):
        np.testing.assert_allclose(f - z, scale * (o - z), atol=1e-5)


def test_guided_predictions_still_explain_x():
    found = guided(3.0)
    np.testing.assert_allclose(PROCESS.corrupt(found.x0, found.noise, T), X, atol=1e-5)


def test_learned_variance_is_the_conditional_one():
    def with_variance(value):
        return lambda x, t: dj.Prediction(x, x, jnp.full_like(x, value))

    found = dj.classifier_free(with_variance(0.25), with_variance(0.75), 2.0)(X, T)
    np.testing.assert_array_equal(found.variance, 0.25)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, jnp.array([0.0, 1.0, 3.0])], ids=str)
@pytest.mark.parametrize("null", [NULL, dj.Condition(vector=jnp.zeros((3, 2)))], ids=["1", "b"])
def test_fused_equals_two_calls(scale, null):
    fused = dj.classifier_free_fused(network, CONDITION, null, scale)
    close(dj.denoiser_from(fused, PROCESS, dj.V())(X, T), guided(scale))


def test_fused_is_one_call_of_twice_the_batch():
    sizes = []

    def spy(x, t, condition):
        sizes.append((x.shape[0], t.shape[0], condition.vector.shape[0]))
        return network(x, t, condition)

    dj.classifier_free_fused(spy, CONDITION, NULL, 2.0)(X, T)
    assert sizes == [(6, 6, 6)]


def test_each_example_has_its_own_scale():
    scales = jnp.array([0.0, 1.0, 5.0])
    found = guided(scales)
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(found.x0[i], guided(scale).x0[i], atol=2e-6)


def drop(index, probability, seed=0, condition=None):
    count = len(index)
    condition = condition or dj.Condition(
        vector=jnp.ones((count, 2)), tokens=jnp.ones((count, 3, 2))
    )
    null = jax.tree.map(lambda c: jnp.zeros_like(c[:1]), condition)
    return dj.drop_condition(jax.random.key(seed), index, condition, null, probability)


def test_dropping_never_and_always():
    index = jnp.arange(20)
    for probability, kept in ((0.0, 1.0), (1.0, 0.0)):
        found = drop(index, probability)
        np.testing.assert_array_equal(found.vector, kept)
        np.testing.assert_array_equal(found.tokens, kept)
        assert found.image is None and found.mask is None


def test_drops_at_its_rate_and_an_examples_fields_together():
    count = 4000
    found = drop(jnp.arange(count), 0.3)
    dropped = np.asarray(found.vector[:, 0] == 0)
    assert abs(dropped.mean() - 0.3) < 5 * np.sqrt(0.21 / count)
    np.testing.assert_array_equal(found.vector[:, 1] == 0, dropped)
    np.testing.assert_array_equal(np.all(found.tokens == 0, axis=(1, 2)), dropped)
    np.testing.assert_array_equal(np.any(found.tokens == 0, axis=(1, 2)), dropped)


def test_dropping_does_not_depend_on_how_the_batch_is_cut():
    whole = drop(jnp.arange(64), 0.5).vector
    some = jnp.array([5, 60, 17, 33])
    np.testing.assert_array_equal(drop(some, 0.5).vector, whole[some])
    assert np.any(drop(jnp.arange(64), 0.5, seed=1).vector != whole)


@pytest.mark.parametrize(
    "combine",
    [
        lambda c, n: dj.classifier_free_fused(network, c, n, 1.0),
        lambda c, n: dj.drop_condition(jax.random.key(0), jnp.arange(3), c, n, 0.1),
    ],
    ids=["fused", "drop"],
)
def test_null_with_other_fields_is_refused(combine):
    with pytest.raises(
        ValueError, match=r"fields \['tokens', 'vector'\] and its null \['vector'\]"
    ):
        combine(CONDITION._replace(tokens=jnp.zeros((3, 1, 1))), NULL)
