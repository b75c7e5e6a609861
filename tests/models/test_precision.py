"""A bfloat16 network multiplies in bfloat16, and is float32 where `precision` says."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from diffusion_jax.models import (
    CLIP,
    CodeTransformer,
    KLAutoencoder,
    LatentUNet,
    LayoutEncoder,
    ModifiedResNet,
    TextEncoder,
    TextTransformer,
    UNet,
    VisionTransformer,
    quick_gelu,
)
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.layers import PooledDown
from diffusion_jax.models.precision import island, product
from diffusion_jax.types import Condition
from tests.oracle import normal

HALF = jnp.bfloat16
X, T = jnp.zeros((2, 8, 8, 3)), jnp.zeros(2)
TOLD = Condition(
    vector=jnp.zeros((2, 5)),
    tokens=jnp.zeros((2, 4, 6)),
    mask=jnp.ones((2, 4), bool),
    image=jnp.zeros((2, 8, 8, 2)),
)
UNET = UNet(3, 8, (1, 2), 1, (4,), head_channels=8, modulate=True, dropout=0.1, dtype=HALF)
TEXT = TextEncoder(vocabulary=7, width=16, layers=1, heads=2, length=4, dtype=HALF)
LAYOUT = LayoutEncoder(classes=2, width=16, layers=1, heads=2, dtype=HALF)
VISION = VisionTransformer(8, 16, 2, 2, 4, 8, remat="dots", dtype=HALF)
CAPTIONS = TextTransformer(8, 7, 4, 16, 2, 2, 0, dtype=HALF)
RESNET = ModifiedResNet(8, (1, 1), 8, 2, 8, dtype=HALF)
WORDS = jnp.zeros((2, 4), jnp.int32)
LATENT = LatentUNet(3, (8, 16), (0, 1), (1, 2), middle_depth=1, blocks=1, groups=4, pooled=5)
LATENT = LATENT.clone(dtype=HALF)
CODES = CodeTransformer(6, 5, 32, 1, 2, 7, 4, activation=quick_gelu, dtype=HALF)
PAIRS = (X, jnp.zeros((2, 4), jnp.int32))
PICTURES = (X, T, TOLD)
NETWORKS = {
    "unet": (UNET, PICTURES),
    "unet_added": (UNET.clone(modulate=False, down=PooledDown), PICTURES),
    "dit": (DiT(3, 8, 2, 16, 2, 2, dtype=HALF), PICTURES),
    "dit_remat": (DiT(3, 8, 2, 16, 2, 2, remat="full", dtype=HALF), PICTURES),
    "text": (TEXT, (Condition(tokens=jnp.zeros((2, 4), jnp.int32)),)),
    "clip": (CLIP(VISION, CAPTIONS), PAIRS),
    "clip_resnet": (CLIP(RESNET, CAPTIONS), PAIRS),
    "layout": (LAYOUT, (Condition(tokens=jnp.zeros((2, 4, 6))),)),
    "latent_unet": (LATENT, (*PICTURES[:2], TOLD._replace(image=None))),
    "kl": (KLAutoencoder(2, 3, 8, (1, 2), 1, groups=4, dtype=HALF), (X,)),
    "codes": (CODES, (jnp.zeros((2, 6), jnp.int32), TOLD._replace(image=None, tokens=WORDS))),
}


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a jaxpr, and of those inside it, however deep."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, core.ClosedJaxpr):
                    yield from equations(item.jaxpr)
                elif isinstance(item, core.Jaxpr):
                    yield from equations(item)


@functools.cache
def traced(name: str, what: str) -> list[Any]:
    """The equations of a network's answer, or of its gradient."""
    network, inputs = NETWORKS[name]
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)

    def answer(params):
        y = network.apply(params, *inputs, rngs={"dropout": jax.random.key(0)})
        return sum(leaf.sum() for leaf in jax.tree.leaves(y) if leaf.dtype == jnp.float32)

    function = answer if what == "answer" else jax.grad(answer)
    return list(equations(jax.make_jaxpr(function)(params).jaxpr))


def halves(equation: Any) -> bool:
    """Whether any operand is bfloat16."""
    return any(getattr(v.aval, "dtype", None) == HALF for v in equation.invars)


@pytest.mark.parametrize("what", ["answer", "gradient"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_take_bfloat16_alone(name, what):
    products = [
        equation
        for equation in traced(name, what)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(products) > 5
    for equation in products:
        assert {v.aval.dtype for v in equation.invars} == {np.dtype(HALF)}, equation


@pytest.mark.parametrize("what", ["answer", "gradient"])
@pytest.mark.parametrize("name", NETWORKS)
def test_softmax_and_norms_are_float32(name, what):
    if (name, what) == ("latent_unet", "gradient"):
        pytest.skip("an exact GELU's derivative has an exponential of its own")
    seen = set()
    for equation in traced(name, what):
        primitive = equation.primitive.name
        if primitive in ("exp", "rsqrt", "reduce_max", "sin", "cos", "sqrt"):
            seen.add(primitive)
            assert not halves(equation), equation
        if primitive == "reduce_sum" and halves(equation):
            # What a gradient sums over examples and places (a bias, a gate): XLA's reductions of
            # bfloat16 are float32 inside. Sums over channels or weights belong to islands.
            operand = equation.invars[0].aval
            assert what == "gradient" and operand.ndim - 1 not in equation.params["axes"], equation
    assert seen >= {"exp", "rsqrt", "reduce_max"}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_answers_are_float32(name):
    network, inputs = NETWORKS[name]
    y, params = jax.eval_shape(network.init_with_output, jax.random.key(0), *inputs)
    floats = [x.dtype for x in jax.tree.leaves((params, y)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert set(floats) == {np.dtype(jnp.float32)}


def test_products_are_accumulated_in_float32():
    ones = jnp.ones((1, 4096), HALF)
    tail = ones.at[0, 1:].set(2.0**-9)  # each is lost beside 1 in bfloat16
    y = product("ij,kj->ik", tail, ones)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, 1 + 4095 * 2.0**-9)


def test_derivatives_are_those_of_einsum():
    a, b, weight = normal(0, 3, 4), normal(1, 4, 5), normal(2, 3, 5)
    found, expected = (
        (*jax.vjp(f, a, b)[1](weight), jax.jvp(f, (a, b), (2 * a, b))[1])
        for f in (
            lambda a, b: product("ij,jk->ik", a, b),
            lambda a, b: jnp.einsum("ij,jk->ik", a, b),
        )
    )
    for ours, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_doubles_stay_doubles(x64):
    x = jnp.ones((2, 2), jnp.float64)
    assert island(x).dtype == product("ij,jk->ik", x, x).dtype == jnp.float64
    assert island(jnp.arange(3)).dtype == jnp.float32
