"""A network from any library as a `Model`: two pure functions, init and apply."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.denoisers import precondition
from diffusion_jax.types import Model, Time


def from_linen(module: nn.Module) -> Model:
    """The Model of a Linen module called as module(x, t, condition).

    Dropout is on in `apply` when a key is given, through the module's "dropout" stream.
    """

    def init(key, x, t, condition):
        return module.init(key, x, t, condition)["params"]

    def apply(params, x, t, condition, *, key=None):
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, x, t, condition, rngs=rngs)

    return Model(init, apply)


def from_nnx(make: Callable[[Any], Any]) -> Model:
    """The Model of an NNX module, made by make(rngs) and called as module(x, t, condition).

    Its parameters are what `nnx.Param` holds, as a dict. Random layers draw from the key
    given to `apply`; without one the module is in `eval` mode.

    Raises:
        ValueError: the module has state beside its parameters (batch statistics, say), so it
            isn't a pure function of them.
    """
    from flax import nnx

    def split(rngs):
        return nnx.split(make(rngs), nnx.Param, nnx.RngState, ...)

    graph, like, randomness, rest = nnx.eval_shape(lambda: split(nnx.Rngs(0)))
    if jax.tree.leaves(rest):
        raise ValueError(
            f"the NNX module has state beside its parameters: {list(nnx.to_pure_dict(rest))}; "
            "a network must be a pure function of its parameters."
        )

    def init(key, x, t, condition):
        return nnx.to_pure_dict(split(nnx.Rngs(key))[1])

    leaves, streams = jax.tree.flatten(randomness)

    def reseed(key):
        """Each stream from a key of its own, its count back at zero."""
        fresh = []
        for i, leaf in enumerate(leaves):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                fresh.append(jax.random.split(jax.random.fold_in(key, i), leaf.shape))
            else:
                fresh.append(jnp.zeros(leaf.shape, leaf.dtype))
        return jax.tree.unflatten(streams, fresh)

    def apply(params, x, t, condition, *, key=None):
        state = jax.tree.map(lambda leaf: leaf, like)  # a copy, to be filled
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph, state, randomness if key is None else reseed(key))
        module.eval() if key is None else module.train()
        return module(x, t, condition)

    return Model(init, apply)


def with_time(
    model: Model,
    network_time: Callable[[Time], Array],
    input_scale: Callable[[Time], Array] = jnp.ones_like,
) -> Model:
    """The Model that is told network_time(t) instead of t, such as a table's index.

    Args:
        model: sees c_noise.
        network_time: c_noise, times [b] -> [b]; `table_time` for networks of a table.
        input_scale: c_in, times [b] -> [b]: the model sees c_in x. `EDM` has both.
    """

    def told(params, condition, key):
        return precondition(
            lambda x, t: model.apply(params, x, t, condition, key=key),
            input_scale=input_scale,
            network_time=network_time,
        )

    def apply(params, x, t, condition, *, key=None):
        return told(params, condition, key)(x, t)

    def init(key, x, t, condition):
        return model.init(key, x, network_time(t), condition)

    return Model(init, apply)
