"""Interpolation: exact ends, arcs of constant speed, conditions with masks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import normal

A, B = normal(0, 4, 3, 3, 1), normal(1, 4, 3, 3, 1)
slerp = jax.jit(dj.slerp)


def norm(x):
    return np.sqrt((np.asarray(x, float) ** 2).sum(axis=(1, 2, 3)))


def test_ends_are_exact():
    for between in (slerp, jax.jit(dj.lerp)):
        np.testing.assert_array_equal(between(A, B, 0.0), A)
        np.testing.assert_array_equal(between(A, B, 1.0), B)
        mixed = between(A, B, jnp.array([0.0, 1.0, 0.5, 0.0]))
        np.testing.assert_array_equal(mixed[0], A[0])
        np.testing.assert_array_equal(mixed[1], B[1])
        assert np.abs(mixed[2] - A[2]).min() > 0


def test_an_arc_has_its_norm_and_constant_speed():
    a, b = (v / norm(v).astype(np.float32)[:, None, None, None] for v in (A, B))
    points = [slerp(a, b, w) for w in np.linspace(0, 1, 5)]
    for point in points:
        np.testing.assert_allclose(norm(point), 1.0, rtol=1e-5)
    chords = [norm(q - p) for p, q in itertools.pairwise(points)]
    np.testing.assert_allclose(chords, np.broadcast_to(chords[0], (4, 4)), rtol=1e-4)


@pytest.mark.parametrize("factor", [1.0, 2.0, 1.0 + 1e-6, 0.0, -1.0])
def test_parallel_and_opposite_codes_are_finite_with_finite_gradients(factor):
    value, gradient = jax.jit(jax.value_and_grad(lambda a, w: dj.slerp(a, factor * a, w).sum()))(
        A, 0.3
    )
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    if factor >= 1:
        np.testing.assert_allclose(slerp(A, factor * A, 0.3), (0.7 + 0.3 * factor) * A, rtol=1e-5)


def test_conditions_interpolate_field_by_field_and_masks_join():
    left, right = (
        dj.Condition(vector=normal(seed, 2, 3), tokens=normal(seed, 2, 2, 3), mask=mask)
        for seed, mask in (
            (0, jnp.array([[1, 0], [1, 1]]) > 0),
            (1, jnp.array([[0, 1], [1, 0]]) > 0),
        )
    )
    half = dj.lerp(left, right, 0.5)
    np.testing.assert_allclose(half.tokens, (left.tokens + right.tokens) / 2, rtol=1e-6)
    np.testing.assert_array_equal(half.mask, True)
    assert half.image is None
    ends = functools.partial(dj.lerp, left, right)
    np.testing.assert_array_equal(ends(0.0).mask, left.mask)
    np.testing.assert_array_equal(ends(1.0).mask, right.mask)


@pytest.mark.parametrize("between", [dj.slerp, dj.lerp])
@pytest.mark.parametrize(
    ("b", "weight", "message"),
    [
        (B[:1], 0.5, r"a is float32 of shape \(4, 3, 3, 1\) and b float32 of shape \(1, 3, 3, 1\)"),
        (B[..., 0], 0.5, r"b float32 of shape \(4, 3, 3\); they must be alike"),
        (B > 0, 0.5, "b bool of shape"),
        (B, jnp.ones(3), r"the weight has shape \(3,\); it is a scalar, or \[b\] = \(4,\)"),
    ],
    ids=["batch", "rank", "bool", "weight"],
)
def test_what_is_not_alike_is_refused(between, b, weight, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(between, A, b, weight)


def test_conditions_with_other_fields_have_nothing_in_between():
    with pytest.raises(ValueError, match="they must be alike"):
        dj.lerp(dj.Condition(vector=A), dj.Condition(image=A), 0.5)


def test_integers_have_nothing_in_between():
    with pytest.raises(ValueError, match=r"nothing between integers, but an array is int32"):
        dj.lerp(jnp.array([1]), jnp.array([2]), 0.5)
