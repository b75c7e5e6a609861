"""The denoising loss: how far the network's y is from a x_0 + b noise.

    L = E_{x_0, noise, t} w(t) || y(x_t, t) - (a x_0 + b noise) ||^2 / dimensions           (1)

It is made of two parts: `Terms`, the loss of each example at a given time, and how times are
drawn. `averaged` draws them by a rule; `importance.importance_sampled` by what it has seen.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.losses.weightings import Weighting, constant, simple
from diffusion_jax.parameterizations import target
from diffusion_jax.random import example_keys, normal
from diffusion_jax.timesteps import Times, Uniform
from diffusion_jax.types import (
    Apply,
    Batch,
    Condition,
    Extra,
    GaussianProcess,
    Index,
    Key,
    Loss,
    Metrics,
    Parameterization,
    Params,
    Time,
)

__all__ = ["Weighting", "averaged", "constant", "denoising_loss", "denoising_terms", "simple"]

Conditioning = Callable[[Key, Index, Batch], Condition]
# (params, key, batch, t) -> (the loss of each example [b], {metric: [b]}). The first of
# `split(key, 4)` is left to who draws t.
Terms: TypeAlias = Callable[[Params, Key, Batch, Time], tuple[Array, Metrics]]


class Answer(NamedTuple):
    """A corrupted batch and what the network says of it, in the process's coordinates."""

    x0: Array
    noise: Array
    x: Array
    y: Array
    variance: Array | None


def unconditional(key: Key, index: Index, batch: Batch) -> Condition:
    """No condition, for any batch."""
    return Condition()


def per_example(values: Array) -> Float[Array, " b"]:
    """The mean over each example's dimensions."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)


def ask(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    condition: Conditioning,
) -> Callable[[Params, Key, Batch, Time], Answer]:
    """Corrupts a batch to times t and asks the network; example i draws from keys folded with i."""

    def answer(params: Params, key: Key, batch: Batch, t: Time) -> Answer:
        _, key_noise, key_condition, key_network = jax.random.split(key, 4)
        x0 = process.encode(batch["image"])
        index = jnp.arange(x0.shape[0])
        noise = normal(example_keys(key_noise, index), x0.shape[1:], x0.dtype)
        x = process.corrupt(x0, noise, t)
        c = condition(key_condition, index, batch)
        said = apply(params, process.decode(x), t, c, key=key_network)
        y, variance = parameterization.split(said)
        return Answer(x0, noise, x, process.encode(y), variance)

    return answer


def denoising_terms(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    *,
    weighting: Weighting = simple,
    condition: Conditioning = unconditional,
) -> Terms:
    """The loss of equation (1) for each example at a given time; arguments of `denoising_loss`."""
    answer = ask(apply, process, parameterization, condition)

    def terms(params: Params, key: Key, batch: Batch, t: Time):
        x0, noise, x, y, _ = answer(params, key, batch, t)
        error = (y - target(parameterization, process, x0, noise, t)) ** 2
        weighted = weighting(process, parameterization, t, x) * error
        return per_example(weighted), {"mse": per_example(error)}

    return terms


def averaged(terms: Terms, times: Times = Uniform()) -> Loss:
    """The mean of these terms over a batch, at times drawn by this rule."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        count = batch["image"].shape[0]
        t = times(jax.random.split(key, 4)[0], jnp.arange(count), count)
        values, metrics = terms(params, key, batch, t)
        value = jnp.mean(values)
        means = {name: jnp.mean(v) for name, v in metrics.items()}
        return value, ({"loss": value, **means}, extra)

    return loss


def denoising_loss(
    apply: Apply,
    process: GaussianProcess,
    parameterization: Parameterization,
    *,
    times: Times = Uniform(),
    weighting: Weighting = simple,
    condition: Conditioning = unconditional,
) -> Loss:
    """The loss of equation (1), for one batch.

    Args:
        apply: (params, x, t, condition, *, key=None) -> y; the key is for dropout.
        process: corrupts.
        parameterization: what the network predicts. A learned variance isn't trained here.
        times: draws t for each example.
        weighting: w(t).
        condition: (key, index, batch) -> Condition, with its own dropping of conditions.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "mse"}, extra)). The batch has
        "image" [b h w c] in [-1, 1]. Example i draws from keys folded with i.

    Source: Ho et al. 2020 (arXiv:2006.11239), Algorithm 1 and equation (14).
    """
    terms = denoising_terms(
        apply, process, parameterization, weighting=weighting, condition=condition
    )
    return averaged(terms, times)
