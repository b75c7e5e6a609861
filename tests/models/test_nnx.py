"""NNX modules as Models: pure functions of parameters, dropout by key, trained by the same loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import diffusion_jax as dj
from diffusion_jax.models import from_nnx
from tests.oracle import normal

SHAPE = (4, 2, 2, 1)
X = normal(0, *SHAPE)
T = jnp.array([0.1, 0.4, 0.6, 0.9])


class Perceptron(nnx.Module):
    def __init__(self, rngs, rate=0.5):
        self.first = nnx.Linear(5, 16, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.second = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x, t, condition):
        h = jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None]], axis=1)
        h = self.dropout(nnx.silu(self.first(h)))
        return self.second(h).reshape(x.shape)


@pytest.fixture(scope="module")
def model():
    return from_nnx(Perceptron)


@pytest.fixture(scope="module")
def params(model):
    return model.init(jax.random.key(0), X, T, dj.Condition())


def test_parameters_are_a_plain_tree_drawn_from_the_key(model, params):
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(5, 16), (16,), (16, 4), (4,)}
    again, other = (model.init(jax.random.key(k), X, T, dj.Condition()) for k in (0, 1))
    np.testing.assert_array_equal(again["first"]["kernel"], params["first"]["kernel"])
    assert np.any(other["first"]["kernel"] != params["first"]["kernel"])


def test_apply_is_the_module(model, params):
    """Without a key it's the module in evaluation mode with these parameters."""
    module = Perceptron(nnx.Rngs(7))
    module.first.kernel[...] = params["first"]["kernel"]
    module.first.bias[...] = params["first"]["bias"]
    module.second.kernel[...] = params["second"]["kernel"]
    module.second.bias[...] = params["second"]["bias"]
    module.eval()
    ours = jax.jit(model.apply)(params, X, T, dj.Condition())
    np.testing.assert_allclose(ours, module(X, T, dj.Condition()), atol=1e-6)


def test_dropout_is_on_with_a_key_and_decided_by_it(model, params):
    apply = jax.jit(lambda key=None: model.apply(params, X, T, dj.Condition(), key=key))
    still, one, two = apply(), apply(jax.random.key(1)), apply(jax.random.key(2))
    np.testing.assert_array_equal(apply(), still)
    np.testing.assert_array_equal(apply(jax.random.key(1)), one)
    assert np.any(one != two) and np.any(one != still)


def test_trains_in_the_denoising_loss(model, params):
    loss = dj.denoising_loss(model.apply, dj.Gaussian(dj.Cosine()), dj.V())
    batch = {"image": X}
    optimizer = optax.sgd(0.05)

    @jax.jit
    def step(params):
        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, (), jax.random.key(3), batch
        )
        updates, _ = optimizer.update(gradient, optimizer.init(params))
        return optax.apply_updates(params, updates), value, gradient

    params, before, gradient = step(params)
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in jax.tree.leaves(gradient))
    _, after, _ = step(params)
    assert after < before


def test_state_beside_the_parameters_is_refused():
    class Normalized(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(1, rngs=rngs)

        def __call__(self, x, t, condition):
            return self.norm(x)

    with pytest.raises(ValueError, match=r"state beside its parameters: \['norm'\]"):
        from_nnx(Normalized)
