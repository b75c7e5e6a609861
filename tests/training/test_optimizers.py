"""Optimizers: two steps of the toy, the bytes they keep, and how what they keep is cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffusion_jax.models.cuts import cut_of
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.optimizers import adafactor, adam, adam_bfloat16, adamw
from diffusion_jax.training.sharding import tree_bytes
from tests.training import toy

EVERY = (adam, adamw, adam_bfloat16, adafactor)


def kept(optimizer, shape):
    """Bytes of state for a parameter of this shape, beyond what an empty one takes."""

    def size(shape):
        state = jax.eval_shape(optimizer(1e-3).init, {"w": jnp.zeros(shape)})
        return tree_bytes(state)

    return size(shape) - size((0,))


def test_a_run_stops_and_goes_on(tmp_path):
    """Placeholders of what isn't factored and bfloat16 momentum go through a checkpoint."""
    experiment = dataclasses.replace(toy.recipe(steps=2), optimizer=adafactor)
    options = Options(log_every=1, checkpoint_every=1, sample_every=0)
    whole = train(experiment, options, tmp_path, show=False)
    (tmp_path / "parts").mkdir()
    train(dataclasses.replace(experiment, steps=1), options, tmp_path / "parts", show=False)
    again = train(experiment, options, tmp_path / "parts", show=False)
    assert toy.equal(again, whole)


@pytest.mark.parametrize("optimizer", EVERY)
def test_a_quadratic_falls(optimizer):
    """From 1 to 0 at a rate of 0.01: about a hundred steps, since steps don't follow slopes."""
    transformation = optimizer(1e-2)
    target = jnp.linspace(-1.0, 1.0, 256 * 128).reshape(256, 128)
    params = {"w": jnp.zeros_like(target)}

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: jnp.sum((p["w"] - target) ** 2))(params)
        updates, state = transformation.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = transformation.init(params)
    for _ in range(150):
        params, state = step(params, state)
    assert np.abs(params["w"] - target).mean() < 0.1


def test_bytes_a_parameter():
    shape = (256, 512)
    per = {optimizer: kept(optimizer, shape) / (256 * 512) for optimizer in EVERY}
    assert per[adam] == per[adamw] == 8
    assert per[adam_bfloat16] == 6
    assert 2 < per[adafactor] < 2.05
    assert kept(adafactor, (256, 64)) / (256 * 64) > 5.9  # too narrow to be factored


def test_weight_decay_spares_gains_and_biases():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    transformation = adamw(1.0, weight_decay=0.1)
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(still, transformation.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0.0)


def test_factors_are_whole_and_momentum_is_cut_like_its_matrix():
    params = {"blocks": {"mlp1": {"kernel": jnp.zeros((12, 256, 1024))}}}
    state = jax.eval_shape(adafactor(1e-3).init, params)
    axes = {"data": 1, "fsdp": 4, "tensor": 2}
    cuts = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): (
            leaf.shape,
            cut_of(jax.tree_util.keystr(keys, simple=True, separator="/"), leaf.shape, axes),
        )
        for keys, leaf in jax.tree.leaves_with_path(state)
    }
    rows = [cut for path, (shape, cut) in cuts.items() if "v_row" in path or "v_col" in path]
    like = [cut for shape, cut in cuts.values() if shape == (12, 256, 1024)]
    assert {shape for shape, _ in cuts.values()} >= {(12, 256), (12, 1024)}
    assert rows == [PartitionSpec()] * 2
    assert like == [cut_of("params/blocks/mlp1/kernel", (12, 256, 1024), axes)]
    assert like != [PartitionSpec()]
