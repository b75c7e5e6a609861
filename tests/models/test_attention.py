"""Attention against plain references, gradients included; what a pool of pixels can tell apart."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.attention import Attention, AttentionPool, TransformerBlock
from diffusion_jax.models.layers import groups_for
from tests.models.test_layers import KEY, agree, randomized
from tests.oracle import normal


@pytest.mark.parametrize(
    ("head_channels", "source"), [(None, "self"), (4, "self"), (None, "tokens"), (4, "masked")]
)
def test_attention_is_softmax_attention(head_channels, source):
    """softmax(q k / sqrt(d)) v written out, with Flax's group norm, gradients included."""
    b, h, w, c, n = 2, 3, 4, 8, 5
    x = normal(0, b, h, w, c)
    tokens = None if source == "self" else normal(1, b, n, 6)
    mask = jnp.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool) if source == "masked" else None
    module = Attention(head_channels)
    params = randomized(module, x, tokens, mask)
    d = head_channels or c

    def reference(p, x, tokens):
        normed = nn.GroupNorm(groups_for(c, 32), epsilon=1e-5).apply({"params": p["norm"]}, x)
        pixels = normed.reshape(b, h * w, c)

        def project(name, v):
            return v @ p[name]["kernel"] + p[name]["bias"][None, None]

        memory = pixels if tokens is None else tokens
        q = project("query", pixels).reshape(b, -1, c // d, d)
        k, v = (project(name, memory).reshape(b, -1, c // d, d) for name in ("key", "value"))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(d)
        if mask is not None:
            logits = jnp.where(mask[:, None, None], logits, -1e9)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v).reshape(b, h * w, c)
        return x + project("out", y).reshape(x.shape)

    arguments = (params, x) if tokens is None else (params, x, tokens)
    agree(
        lambda p, x, tokens=None: module.apply({"params": p}, x, tokens, mask),
        lambda p, x, tokens=None: reference(p, x, tokens),
        *arguments,
    )


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="8 channels can't be cut into heads of 3"):
        jax.eval_shape(Attention(3).init, KEY, jnp.zeros((1, 2, 2, 8)))


@pytest.mark.parametrize("layer", ["attention", "transformer"])
def test_new_residual_layers_add_nothing(layer):
    module, inputs = {
        "attention": (Attention(), (normal(0, 2, 2, 2, 4),)),
        "transformer": (TransformerBlock(2), (normal(0, 2, 3, 4), jnp.ones((2, 3), bool))),
    }[layer]
    y, _ = jax.jit(module.init_with_output)(KEY, *inputs)
    np.testing.assert_array_equal(y, inputs[0])


@pytest.mark.parametrize("head_channels", [None, 4])
def test_the_pool_is_flaxs_attention_from_the_mean(head_channels):
    """Flax's own multi-head attention, asked by the mean token, with the same parameters."""
    b, h, w, c, features = 2, 2, 3, 8, 5
    x, module = normal(0, b, h, w, c), AttentionPool(features, head_channels)
    params = randomized(module, x)
    d = head_channels or c
    flax = nn.MultiHeadDotProductAttention(c // d, qkv_features=c, out_features=features)

    def reference(p, x):
        pixels = x.reshape(b, h * w, c)
        tokens = jnp.concatenate([pixels.mean(1)[:, None], pixels], axis=1) + p["positions"][None]
        cut = {
            name: {
                "kernel": p[name]["kernel"].reshape(c, -1, d),
                "bias": p[name]["bias"].reshape(-1, d),
            }
            for name in ("query", "key", "value")
        }
        out = {"kernel": p["out"]["kernel"].reshape(-1, d, features), "bias": p["out"]["bias"]}
        return flax.apply({"params": cut | {"out": out}}, tokens[:, :1], tokens)[:, 0]

    agree(lambda p, x: module.apply({"params": p}, x), reference, params, x)


def test_the_pool_knows_places_by_its_positions_alone():
    x, module = normal(0, 2, 3, 3, 4), AttentionPool(5, 2)
    params = randomized(module, x)
    shuffled = x.reshape(2, 9, 4)[:, ::-1].reshape(x.shape)
    run = jax.jit(lambda params, x: module.apply({"params": params}, x))
    assert np.abs(run(params, shuffled) - run(params, x)).max() > 1e-2
    blind = params | {"positions": jnp.zeros_like(params["positions"])}
    np.testing.assert_allclose(run(blind, shuffled), run(blind, x), atol=1e-5)


@pytest.mark.parametrize(
    ("head_channels", "size", "message"),
    [
        (3, (2, 2), "4 channels can't be cut into heads of 3"),
        (None, (3, 2), r"learned 4 positions, and is given 6 \(3x2\)"),
    ],
)
def test_the_pool_refuses_other_heads_and_other_sizes(head_channels, size, message):
    like = jax.eval_shape(AttentionPool(5).init, KEY, jnp.zeros((1, 2, 2, 4)))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(AttentionPool(5, head_channels).apply, like, jnp.zeros((1, *size, 4)))
