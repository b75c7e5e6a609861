"""Stable Diffusion's U-Net: its published sizes, what it reads, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import LatentUNet, sd1_unet, sd2_unet, sdxl_unet
from diffusion_jax.types import Condition

TINY = LatentUNet(
    channels=(8, 16),
    depths=(1, 0),
    heads=(2, 2),
    blocks=1,
    groups=4,
    pooled=3,
    sizes=2,
    size_features=4,
)
X, T = jnp.ones((2, 4, 4, 4)), jnp.array([3.0, 700.0])
CONDITION = Condition(
    tokens=jnp.ones((2, 5, 6)),
    mask=jnp.ones((2, 5), bool),
    vector=jnp.ones((2, 5)),
    image=jnp.ones((2, 4, 4, 2)),
)


@pytest.mark.parametrize(
    ("make", "text", "vector", "parameters"),
    [
        (sd1_unet, 768, None, 859_520_964),
        (sd2_unet, 1024, None, 865_910_724),
        (sdxl_unet, 2048, 1286, 2_567_463_684),
    ],
)
def test_published_numbers_of_parameters(make, text, vector, parameters):
    condition = Condition(
        tokens=jnp.zeros((1, 1, text)),
        vector=None if vector is None else jnp.zeros((1, vector)),
    )
    inputs = jnp.zeros((1, 8, 8, 4)), jnp.zeros((1,)), condition
    like = jax.eval_shape(make().init, jax.random.key(0), *inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(like)) == parameters


@pytest.fixture(scope="module")
def params():
    """Drawn by NumPy, so that nothing starts at zero."""
    random = np.random.default_rng(0)
    like = jax.eval_shape(TINY.init, jax.random.key(0), X, T, CONDITION)
    return jax.tree.map(lambda p: jnp.asarray(0.3 * random.normal(size=p.shape), p.dtype), like)


@pytest.fixture(scope="module")
def apply(params):
    return jax.jit(lambda x, t, condition: TINY.apply(params, x, t, condition))


def test_a_new_network_answers_zero():
    y, _ = jax.jit(TINY.init_with_output)(jax.random.key(0), X, T, CONDITION)
    assert y.shape == X.shape and not y.any()


def test_it_reads_everything_that_it_is_given(apply):
    y = apply(X, T, CONDITION)
    for name, change in {
        "tokens": CONDITION.tokens.at[:, 0].set(2.0),
        "vector": CONDITION.vector.at[:, 1].set(2.0),
        "image": CONDITION.image.at[:, 1, 1].set(2.0),
    }.items():
        assert np.abs(apply(X, T, CONDITION._replace(**{name: change})) - y).max() > 1e-3, name
    assert np.abs(apply(X, T + 1, CONDITION) - y).max() > 1e-3
    sizes = CONDITION.vector.at[:, -1].set(512.0)
    assert np.abs(apply(X, T, CONDITION._replace(vector=sizes)) - y).max() > 1e-3


def test_masked_tokens_are_not_read(apply):
    mask = CONDITION.mask.at[:, 3:].set(False)
    junk = CONDITION.tokens.at[:, 3:].set(9.0)
    a = apply(X, T, CONDITION._replace(mask=mask))
    np.testing.assert_array_equal(a, apply(X, T, CONDITION._replace(mask=mask, tokens=junk)))


def test_bfloat16_is_inside_alone(params, apply):
    half = TINY.clone(dtype=jnp.bfloat16)
    like = jax.eval_shape(half.init, jax.random.key(0), X, T, CONDITION)
    assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {np.dtype(jnp.float32)}
    y = jax.jit(half.apply)(params, X, T, CONDITION)
    exact = apply(X, T, CONDITION)
    assert y.dtype == jnp.float32
    assert 0 < np.abs(y - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("network", "x", "condition", "message"),
    [
        (TINY, jnp.ones((2, 4, 5, 4)), CONDITION, "4x5 can't be halved 1 times; .* of 2"),
        (TINY, X, CONDITION._replace(tokens=None), r"reads texts: give condition\.tokens"),
        (TINY, X, CONDITION._replace(vector=None), "has 0 entries, and this network reads 5"),
        (TINY, X, CONDITION._replace(vector=jnp.ones((2, 4))), "has 4 entries, .* reads 5"),
        (TINY.clone(pooled=0, sizes=0), X, CONDITION, "has 5 entries, .* reads 0"),
        (TINY, X, CONDITION._replace(image=jnp.ones((2, 2, 4, 1))), "height and width must be eq"),
        (TINY.clone(heads=(3, 2)), X, CONDITION, "8 channels can't be cut into 3 heads"),
        (TINY.clone(depths=(1,)), X, CONDITION, "an entry for each level"),
    ],
)
def test_what_does_not_fit_is_refused(network, x, condition, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), x, T, condition)
