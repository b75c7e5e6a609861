"""Guidance: linear between two predictions, one call instead of two, several conditions."""

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


def test_an_interval_guides_inside_and_is_conditional_outside():
    found = guided(dj.within(3.0, 0.4, 0.6))
    for i, scale in enumerate((1.0, 3.0, 1.0)):
        np.testing.assert_allclose(found.x0[i], guided(scale).x0[i], atol=2e-6)
    inner = dj.within(jnp.array([0.0, 1.0, 5.0]), 0.1, 0.5)  # its limits are inside
    np.testing.assert_array_equal(dj.within(inner, 0.1, 0.9, outside=0.0)(T), [0.0, 1.0, 1.0])


def test_a_scale_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"scale has shape \(2,\); .* \[b\] = \(3,\)"):
        guided(jnp.ones(2))


def test_rescaled_brings_the_standard_deviation_back_by_phi():
    c, u = normal(3, 3, 4, 4, 1), normal(4, 3, 4, 4, 1)
    plain, whole, half = (dj.rescaled(phi)(c, u, jnp.array(5.0)) for phi in (0.0, 1.0, 0.5))
    np.testing.assert_array_equal(plain, dj.extrapolate(c, u, jnp.array(5.0)))
    axes = (1, 2, 3)
    assert np.all(plain.std(axes) > 2 * c.std(axes))
    np.testing.assert_allclose(whole.std(axes), c.std(axes), rtol=1e-5)
    np.testing.assert_allclose(half.std(axes), (c.std(axes) + plain.std(axes)) / 2, rtol=1e-5)
    flat = jnp.ones((1, 4))
    np.testing.assert_array_equal(dj.rescaled(0.7)(flat, flat, jnp.array(2.0)), flat)


def test_a_rescaled_prediction_explains_x_in_both_forms():
    """In the network's y, and in x0 with the noise that goes with it."""
    combine = dj.rescaled(0.7)
    fused = dj.classifier_free_fused(network, CONDITION, NULL, 5.0, combine=combine)
    two = dj.classifier_free(
        denoiser(CONDITION), denoiser(NULL), 5.0, combine=combine, process=PROCESS
    )
    for guide in (dj.denoiser_from(fused, PROCESS, dj.V()), two):
        found = guide(X, T)
        assert np.abs(found.x0 - guided(5.0).x0).max() > 0.1
        np.testing.assert_allclose(PROCESS.corrupt(found.x0, found.noise, T), X, atol=1e-5)
    linear = dj.classifier_free(denoiser(CONDITION), denoiser(NULL), 5.0, process=PROCESS)
    np.testing.assert_allclose(linear(X, T).noise, guided(5.0).noise, atol=1e-5)


def test_another_rule_needs_the_process():
    with pytest.raises(ValueError, match=r"may not be linear, and no process"):
        dj.classifier_free(denoiser(CONDITION), denoiser(NULL), 5.0, combine=dj.rescaled(0.7))


def learned(x, t, condition):
    """A network with a learned variance that depends on the condition."""
    y = network(x, t, condition)
    return jnp.concatenate([y, 0.1 * jnp.sin(y)], axis=-1)


@pytest.mark.parametrize("combine", [dj.extrapolate, dj.rescaled(0.7)], ids=["linear", "rescaled"])
def test_a_learned_variance_in_the_same_answer_is_not_guided(combine):
    """y is guided as a network's without variance; the variance is the conditional's."""
    with_variance, without = (
        dj.classifier_free_fused(f, CONDITION, NULL, 4.0, combine=combine)(X, T)
        for f in (learned, network)
    )
    np.testing.assert_allclose(with_variance[:, :4], without, atol=1e-6)
    np.testing.assert_allclose(with_variance[:, 4:], learned(X, T, CONDITION)[:, 4:], atol=1e-6)


CONDITIONS = [dj.Condition(vector=normal(seed, 3, 2)) for seed in (5, 6, 7)]
SCALES = (2.0, -0.5, jnp.array([0.0, 1.0, 3.0]))


def test_composition_adds_directions():
    """Each condition moves the prediction from the unconditional one as it does alone."""
    zero = denoiser(NULL)(X, T)
    found = dj.composed([denoiser(c) for c in CONDITIONS], denoiser(NULL), SCALES)(X, T)
    alone = [
        dj.classifier_free(denoiser(c), denoiser(NULL), s)(X, T)
        for c, s in zip(CONDITIONS, SCALES, strict=True)
    ]
    np.testing.assert_allclose(found.x0 - zero.x0, sum(a.x0 - zero.x0 for a in alone), atol=1e-5)
    np.testing.assert_allclose(PROCESS.corrupt(found.x0, found.noise, T), X, atol=1e-5)


@pytest.mark.parametrize("null", [NULL, dj.Condition(vector=jnp.zeros((3, 2)))], ids=["1", "b"])
def test_composition_in_one_call_equals_four(null):
    sizes = []

    def spy(x, t, condition):
        sizes.append(len(x))
        return learned(x, t, condition)

    fused = dj.composed_fused(spy, CONDITIONS, null, SCALES)
    found = dj.denoiser_from(fused, PROCESS, dj.LearnedVariance(dj.V()))(X, T)
    assert sizes == [12]
    close(found, dj.composed([denoiser(c) for c in CONDITIONS], denoiser(NULL), SCALES)(X, T))
    first = learned(X, T, CONDITIONS[0])[:, 4:]
    np.testing.assert_allclose(found.variance, (first + 1) / 2, atol=1e-6)


def test_composition_of_one_is_classifier_free_guidance():
    one = dj.composed([denoiser(CONDITION)], denoiser(NULL), jnp.array([3.0]))(X, T)
    np.testing.assert_array_equal(one.x0, guided(3.0).x0)
    fused = dj.composed_fused(network, [CONDITION], NULL, [3.0])(X, T)
    free = dj.classifier_free_fused(network, CONDITION, NULL, 3.0)(X, T)
    np.testing.assert_array_equal(fused, free)


@pytest.mark.parametrize(("count", "scales"), [(2, (1.0,)), (0, ())])
def test_composition_needs_a_scale_for_each_condition(count, scales):
    message = rf"{count} conditions and {len(scales)} scales"
    with pytest.raises(ValueError, match=message):
        dj.composed([denoiser(NULL)] * count, denoiser(NULL), scales)
    with pytest.raises(ValueError, match=message):
        dj.composed_fused(network, [NULL] * count, NULL, scales)


def test_null_with_other_fields_is_refused():
    more = CONDITION._replace(tokens=jnp.zeros((3, 1, 1)))
    for make in (
        lambda: dj.classifier_free_fused(network, more, NULL, 1.0),
        lambda: dj.composed_fused(network, [CONDITION, more], NULL, (1.0, 1.0)),
    ):
        with pytest.raises(ValueError, match=r"\['tokens', 'vector'\] and its null \['vector'\]"):
            make()


@pytest.mark.parametrize(
    ("told", "null", "message"),
    [
        (jnp.ones((2, 2)), NULL.vector, r"the condition has shape \(2, 2\), and x has 3 examples"),
        (jnp.ones((1, 2)), NULL.vector, r"the condition has shape \(1, 2\), and x has 3 examples"),
        (CONDITION.vector, jnp.zeros((3, 1)), r"condition.vector has shape \(3, 2\) and its null"),
        (CONDITION.vector, jnp.zeros((2, 2)), r"condition.vector has shape \(3, 2\) and its null"),
    ],
)
def test_conditions_of_another_shape_are_refused(told, null, message):
    told, null = dj.Condition(vector=told), dj.Condition(vector=null)
    for guide in (
        lambda: dj.classifier_free_fused(network, told, null, 2.0),
        lambda: dj.composed_fused(network, [told, told], null, [2.0, -1.0]),
    ):
        with pytest.raises(ValueError, match=message):
            guide()(X, T)


def test_what_is_out_of_range_is_refused():
    for low, high in ((0.8, 0.2), (np.nan, 0.5)):
        with pytest.raises(ValueError, match=f"from {low} to {high}; it must be from low to high"):
            dj.within(2.0, low, high)
    for phi in (-0.5, 2.0, np.nan):
        with pytest.raises(ValueError, match=f"phi is {phi:g}; it must be from 0 to 1"):
            dj.rescaled(phi)


def test_a_learned_variance_passes_through_gradients():
    def plain(x, t):
        return dj.Prediction(x, x, jnp.full_like(x, 0.25))

    def log_p(pixels, t):
        return pixels.sum(axis=1)

    for guide in (dj.classifier_guided, dj.guided_by):
        np.testing.assert_array_equal(guide(plain, log_p, PROCESS, 1.0)(X, T).variance, 0.25)


def test_the_gradient_through_the_denoiser_takes_one_call():
    calls = []

    def spy(x, t):
        calls.append(1)
        return denoiser(CONDITION)(x, t)

    dj.guided_by(spy, lambda pixels, t: -(pixels**2).sum(axis=1), PROCESS, 1.0)(X, T)
    assert len(calls) == 1


def test_a_log_probability_of_another_shape_is_refused():
    for guide in (dj.classifier_guided, dj.guided_by):
        with pytest.raises(ValueError, match=r"has shape \(\); .* \[b\] = \(3,\)"):
            guide(denoiser(NULL), lambda pixels, t: pixels.sum(), PROCESS, 1.0)(X, T)


def test_class_log_probability_is_normalised_and_knows_its_classes():
    def logits(pixels, t):
        return pixels[:, :3]

    every = [dj.class_log_probability(logits, jnp.full(3, k))(X, T) for k in range(3)]
    np.testing.assert_allclose(jnp.exp(jnp.stack(every)).sum(0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(every[1] - every[0], X[:, 1] - X[:, 0], atol=1e-6)
    with pytest.raises(ValueError, match=r"label 3 isn't one of the classifier's 3 classes"):
        dj.class_log_probability(logits, jnp.array([0, 3, 1]))(X, T)
    for answer in (X[:, 0], X[None], X[:1]):
        with pytest.raises(ValueError, match=r"they must be \[b classes\] and \[b\]"):
            dj.class_log_probability(lambda *_, a=answer: a, jnp.array([0, 2, 1]))(X, T)


def test_a_traced_label_that_is_no_class_does_not_guide():
    """-1, none, would be the last class, as indices go."""

    @jax.jit
    def gradient(label):
        probability = dj.class_log_probability(lambda pixels, t: pixels[:, :3], label)
        return jax.grad(lambda x: probability(x, T).sum())(X)

    found = gradient(jnp.array([-1, 1, 3]))
    np.testing.assert_array_equal(found[jnp.array([0, 2])], 0.0)
    assert np.all(found[1, :3] != 0)
