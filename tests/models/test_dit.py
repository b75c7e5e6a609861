"""The diffusion transformer: its published sizes, what it hears, what remat leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.dit import DiT, dit, positions
from diffusion_jax.types import Condition
from tests.oracle import normal

SMALL = DiT(out_channels=3, size=8, patch=2, width=16, depth=2, heads=2)
X, T = normal(0, 2, 8, 8, 3), jnp.array([3.0, 700.0])
TOLD = Condition(
    vector=normal(1, 2, 5),
    tokens=normal(2, 2, 4, 6),
    mask=jnp.array([[True, True, True, True], [True, True, False, False]]),
    image=normal(3, 2, 8, 8, 2),
)


@functools.cache
def parameters(module=SMALL, *, told=True):
    """Of these shapes, none of them zero; nothing is compiled for it."""
    condition = TOLD if told else Condition()
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), X, T, condition))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape) / np.sqrt((*s.shape, 1)[-2]), s.dtype),
        shapes,
    )


@functools.cache
def applied(module=SMALL):
    return jax.jit(module.apply)


@pytest.mark.parametrize(
    ("name", "millions"), [("S", 32.96), ("B", 130.5), ("L", 458.1), ("XL", 675.1)]
)
def test_published_sizes(name, millions):
    """Table 1 and the authors' released models, of 32x32x4 latents with 1,000 classes."""
    x, t = jnp.zeros((1, 32, 32, 4)), jnp.zeros(1)
    label = Condition(vector=jnp.zeros((1, 1000)))
    shapes = jax.eval_shape(lambda: dit(name, 2).init(jax.random.key(0), x, t, label))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(millions, rel=2e-3)


def test_a_new_network_answers_zero():
    params = jax.jit(SMALL.init)(jax.random.key(0), X, T, TOLD)
    np.testing.assert_array_equal(applied()(params, X, T, TOLD), 0.0)


@pytest.mark.parametrize("field", ["vector", "tokens", "image"])
def test_every_way_in_is_heard(field):
    before = applied()(parameters(), X, T, TOLD)
    other = TOLD._replace(**{field: getattr(TOLD, field).at[0].multiply(-1.0)})
    after = applied()(parameters(), X, T, other)
    assert np.abs(after[0] - before[0]).max() > 1e-3
    np.testing.assert_allclose(after[1], before[1], atol=1e-5)


def test_masked_tokens_are_not_heard():
    other = TOLD._replace(tokens=TOLD.tokens.at[1, 2:].set(9.0))
    before, after = (applied()(parameters(), X, T, c) for c in (TOLD, other))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_time_and_every_pixel_are_heard():
    before = applied()(parameters(), X, T, TOLD)
    later = applied()(parameters(), X, T + 50.0, TOLD)
    corner = applied()(parameters(), X.at[:, 0, 0].add(1.0), T, TOLD)
    assert np.abs(later - before).max() > 1e-3
    assert np.abs(corner - before)[:, -1, -1].max() > 1e-5


def test_blocks_are_stacked():
    blocks = parameters()["params"]["blocks"]
    assert {leaf.shape[0] for leaf in jax.tree.leaves(blocks)} == {2}


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_gradient(remat):
    def gradient(module):
        return jax.jit(jax.grad(lambda p: (module.apply(p, X, T, TOLD) ** 2).sum()))(parameters())

    found = gradient(SMALL.clone(remat=remat))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient(SMALL)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_half_precision_answers_in_float32():
    full = applied()(parameters(), X, T, TOLD)
    half = applied(SMALL.clone(dtype=jnp.bfloat16))(parameters(), X, T, TOLD)
    assert half.dtype == jnp.float32
    assert 1e-4 < np.abs(half - full).max() < 0.2 * np.abs(full).max()


def test_positions_differ_and_know_rows_from_columns():
    table = positions(4, 16)
    assert len(np.unique(table.round(5), axis=0)) == 16
    np.testing.assert_array_equal(table[0, :8], table[3, :8])  # one row
    np.testing.assert_array_equal(table[1, 8:], table[13, 8:])  # one column


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (SMALL.clone(size=16), "pictures of 8x8 for a DiT that has learned .* 16x16"),
        (SMALL.clone(patch=3), "patches of 3 don't divide a size of 8"),
        (SMALL.clone(width=18), "a width of 18 must be a multiple of 4"),
        (SMALL.clone(heads=3), "of the 3 heads"),
    ],
)
def test_what_does_not_fit_is_refused(module, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.init(jax.random.key(0), X, T, Condition()))


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"condition.image has shape .* must be equal"):
        other = Condition(image=jnp.zeros((2, 4, 4, 1)))
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), X, T, other))
