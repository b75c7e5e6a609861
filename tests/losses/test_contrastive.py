"""The contrastive losses against their definitions, in chunks, and on eight devices."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.losses.contrastive import (
    Pairs,
    contrastive_loss,
    sigmoid_objective,
    softmax_objective,
)

ROOT = Path(__file__).resolve().parents[2]
OBJECTIVES = [softmax_objective, sigmoid_objective]

# Largest relative difference of the loss, and of the gradient to its largest element, where sums
# run in another order. Measured on CPU in float32: 1.1e-7 and 4.1e-7 in chunks; 0 and 4.0e-7 on
# eight devices.
TOLERANCE = 2e-6


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def pairs(b=12, d=5, seed=0, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 2)
    image, text = (unit(jax.random.normal(k, (b, d), dtype)) for k in keys)
    return Pairs(image, text, jnp.asarray(7.0, dtype), jnp.asarray(-3.0, dtype))


def test_softmax_is_the_mean_of_both_cross_entropies():
    p = pairs()
    logits = np.asarray(p.scale * p.image @ p.text.T, np.float64)
    of = [-np.diag(m - np.log(np.exp(m).sum(1, keepdims=True))).mean() for m in (logits, logits.T)]
    value, accuracies = softmax_objective(p)
    np.testing.assert_allclose(value, np.mean(of), rtol=1e-6)
    right = [(m.argmax(1) == np.arange(12)).mean() for m in (logits, logits.T)]
    np.testing.assert_allclose(list(accuracies.values()), right, rtol=1e-6)


def test_sigmoid_asks_yes_or_no_of_each_pair():
    p = pairs()
    logits = np.asarray(p.scale * p.image @ p.text.T + p.bias, np.float64)
    yes = 1 / (1 + np.exp(-logits))
    wanted = np.where(np.eye(12, dtype=bool), yes, 1 - yes)
    np.testing.assert_allclose(sigmoid_objective(p)[0], -np.log(wanted).sum(1).mean(), rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_chunks_change_neither_loss_nor_gradient(objective):
    p = pairs()
    whole, in_chunks = (
        jax.jit(jax.value_and_grad(functools.partial(objective, chunk=c), has_aux=True))
        for c in (None, 3)
    )
    (value, metrics), gradient = whole(p)
    (other, others), more = in_chunks(p)
    np.testing.assert_allclose(other, value, rtol=TOLERANCE)
    assert metrics == others
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(more), strict=True):
        np.testing.assert_allclose(b, a, atol=TOLERANCE * float(jnp.abs(a).max()) + 1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_chunks_bound_the_memory(objective):
    b, d = 2048, 16
    shape = jax.ShapeDtypeStruct((b, d), jnp.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)

    def needed(chunk):
        gradient = jax.grad(lambda p: objective(p, chunk=chunk)[0])
        lowered = jax.jit(gradient).lower(Pairs(shape, shape, scalar, scalar))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert needed(None) > 4 * b * b
    assert needed(64) < 4 * b * b / 4


def test_embeddings_that_do_not_go_together():
    p = pairs()
    with pytest.raises(ValueError, match=r"pictures \(12, 5\) and captions \(11, 5\)"):
        softmax_objective(p._replace(text=p.text[1:]))
    with pytest.raises(ValueError, match="5 at a time, which doesn't divide 12"):
        softmax_objective(p, chunk=5)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scale": jnp.ones(5)}, r"scale of logits must be a scalar, not \(5,\)"),
        ({"scale": jnp.ones((12, 1))}, r"scale of logits must be a scalar, not \(12, 1\)"),
        ({"bias": jnp.ones(12)}, r"bias of logits must be a scalar, not \(12,\)"),
        ({"image": jnp.ones((0, 5)), "text": jnp.ones((0, 5))}, "b at least 1"),
    ],
)
def test_what_would_be_broadcast_and_nothing_are_refused(objective, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        objective(pairs()._replace(**change))


def test_the_loss_has_the_trainers_signature():
    loss = contrastive_loss(lambda params, key, batch: pairs()._replace(scale=params))
    value, (metrics, extra) = loss(jnp.asarray(7.0), "kept", jax.random.key(0), {})
    assert value == metrics["loss"] and metrics["scale"] == 7.0 and extra == "kept"


def test_eight_devices_have_the_loss_and_gradient_of_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.losses.contrastive_on_eight_devices"],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"softmax", "softmax in chunks", "sigmoid", "sigmoid in chunks"}
    for name, (loss, gradient) in report.items():
        assert loss <= TOLERANCE and gradient <= TOLERANCE, (name, loss, gradient)
