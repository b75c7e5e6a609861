"""Conditions dropped: at their rates, together or each field by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj


def condition(count):
    return dj.Condition(
        vector=jnp.ones((count, 2)),
        tokens=jnp.ones((count, 3, 2)),
        mask=jnp.ones((count, 3), bool),
        image=jnp.ones((count, 2, 2, 1)),
    )


def drop(index, probability, seed=0, fields=("vector", "tokens")):
    whole = condition(len(index))
    some = dj.Condition(**{f: getattr(whole, f) for f in fields})
    null = jax.tree.map(lambda c: jnp.zeros_like(c[:1]), some)
    return dj.drop_condition(jax.random.key(seed), index, some, null, probability)


def dropped(field):
    """Which examples' field is null; it is null as a whole or not at all."""
    flat = np.asarray(field, float).reshape(len(field), -1)
    assert np.all(flat == flat[:, :1])
    return flat[:, 0] == 0


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
    vector = dropped(found.vector)
    assert abs(vector.mean() - 0.3) < 5 * np.sqrt(0.21 / count)
    np.testing.assert_array_equal(dropped(found.tokens), vector)


def test_each_field_drops_at_its_rate_by_itself_and_the_mask_with_its_tokens():
    count, rates = 4000, {"vector": 0.1, "tokens": 0.5, "image": 0.3}
    found = drop(jnp.arange(count), dj.Condition(**rates), fields=dj.Condition._fields)
    np.testing.assert_array_equal(dropped(found.mask), dropped(found.tokens))
    draws = np.stack([dropped(getattr(found, f)) for f in rates])
    deviation = np.sqrt([p * (1 - p) for p in rates.values()])
    z = (draws - np.array(list(rates.values()))[:, None]) / deviation[:, None]
    assert np.abs(z.mean(1)).max() < 5 / np.sqrt(count)
    correlation = z @ z.T / count
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() < 5 / np.sqrt(count)


def test_a_field_without_a_probability_is_kept():
    found = drop(jnp.arange(20), dj.Condition(tokens=1.0), fields=dj.Condition._fields)
    assert dropped(found.tokens).all() and dropped(found.mask).all()
    assert not dropped(found.vector).any() and not dropped(found.image).any()


@pytest.mark.parametrize("probability", [0.5, dj.Condition(vector=0.5, tokens=0.2)], ids=["1", "2"])
def test_dropping_does_not_depend_on_how_the_batch_is_cut(probability):
    whole, some = drop(jnp.arange(64), probability), jnp.array([5, 60, 17, 33])
    np.testing.assert_array_equal(drop(some, probability).vector, whole.vector[some])
    np.testing.assert_array_equal(drop(some, probability).tokens, whole.tokens[some])
    assert np.any(drop(jnp.arange(64), probability, seed=1).vector != whole.vector)


@pytest.mark.parametrize(
    ("index", "null", "probability", "message"),
    [
        ((1,), (2, 3), 0.1, r"index has shape \(1,\); there are 2 examples"),
        ((3,), (2, 3), 0.1, r"index has shape \(3,\); there are 2 examples"),
        ((2,), (2, 1), 0.1, r"condition.vector has shape \(2, 3\) and its null \(2, 1\)"),
        ((2,), (3, 3), 0.1, r"condition.vector has shape \(2, 3\) and its null \(3, 3\)"),
        ((2,), (3,), 0.1, r"condition.vector has shape \(2, 3\) and its null \(3,\)"),
        ((2,), (1, 3), 1.5, "probability of dropping a condition is 1.5; it must be from 0 to 1"),
        ((2,), (1, 3), np.nan, "probability of dropping a condition is nan"),
        ((2,), (1, 3), dj.Condition(vector=-1.0), "probability of dropping a condition is -1"),
    ],
)
def test_what_does_not_fit_is_refused_and_never_broadcast(index, null, probability, message):
    def drop(x):
        told, none = dj.Condition(vector=x), dj.Condition(vector=jnp.zeros(null))
        return dj.drop_condition(jax.random.key(0), jnp.zeros(index, int), told, none, probability)

    for way in (drop, lambda x: jax.eval_shape(drop, x)):
        with pytest.raises(ValueError, match=message):
            way(jnp.ones((2, 3)))


def test_null_with_other_fields_is_refused():
    with pytest.raises(ValueError, match=r"fields \['vector'\] and its null \['image'\]"):
        dj.drop_condition(
            jax.random.key(0),
            jnp.arange(2),
            dj.Condition(vector=jnp.ones((2, 1))),
            dj.Condition(image=jnp.ones((2, 1, 1, 1))),
            0.1,
        )


@pytest.mark.parametrize(
    ("probability", "named"),
    [(dj.Condition(image=0.1), "image"), (dj.Condition(tokens=0.1, mask=0.1), "mask")],
    ids=["image", "mask"],
)
def test_a_probability_for_what_cannot_be_dropped_is_refused(probability, named):
    with pytest.raises(
        ValueError, match=rf"for \['{named}'\], .* \['tokens', 'vector'\]; the mask"
    ):
        drop(jnp.arange(2), probability, fields=("vector", "tokens", "mask"))
