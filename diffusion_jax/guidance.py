"""Guidance: functions from denoisers to denoisers.

Classifier-free guidance in the gamma convention, where 0 is unconditional, 1 conditional:

    eps-bar = eps(null) + gamma (eps(c) - eps(null))                                    (1)

Ho & Salimans write (1 + w) eps(c) - w eps(null): gamma = 1 + w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.random import bernoulli, example_keys
from diffusion_jax.types import Condition, Denoiser, Index, Key, Network, Prediction, Scalar, Time


def _combine(conditional: Array, unconditional: Array, scale: Scalar) -> Array:
    scale = jnp.asarray(scale)
    if scale.ndim:  # one scale for each example
        scale = expand(scale, conditional)
    return unconditional + scale * (conditional - unconditional)


def classifier_free(conditional: Denoiser, unconditional: Denoiser, scale: Scalar) -> Denoiser:
    """Equation (1) on the x0 and noise of two denoisers; both are called.

    Args:
        conditional: the denoiser that knows the condition.
        unconditional: the one that doesn't.
        scale: gamma, a scalar or [b]; may be traced.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), equation (6).
    """

    def guided(x: Array, t: Time) -> Prediction:
        c, u = conditional(x, t), unconditional(x, t)
        return c._replace(x0=_combine(c.x0, u.x0, scale), noise=_combine(c.noise, u.noise, scale))

    return guided


def classifier_free_fused(
    network: Callable[[Array, Time, Condition], Array],
    condition: Condition,
    null: Condition,
    scale: Scalar,
) -> Network:
    """Equation (1) as one network call on a batch of 2b, in the network's own output.

    x0 and noise are linear in y, so guiding y guides both alike.

    Args:
        network: (x, t, condition) -> y.
        condition: fields [b ...].
        null: the same fields for "no condition", [b ...] or [1 ...].
        scale: gamma, a scalar or [b]; may be traced.

    Returns:
        A network (x, t) -> y.

    Raises:
        ValueError: condition and null don't have the same fields.
    """
    _check_same_fields(condition, null)

    def guided(x: Array, t: Time) -> Array:
        both = jax.tree.map(
            lambda c, n: jnp.concatenate([c, jnp.broadcast_to(n, c.shape)]), condition, null
        )
        y = network(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both)
        conditional, unconditional = jnp.split(y, 2)
        return _combine(conditional, unconditional, scale)

    return guided


def drop_condition(
    key: Key, index: Index, condition: Condition, null: Condition, probability: Scalar
) -> Condition:
    """Each example's whole condition replaced by null with this probability.

    Args:
        key: the step's key; example i draws from fold_in(key, index[i]).
        index: numbers of the examples in the global batch [b].
        condition: fields [b ...].
        null: the same fields, [b ...] or [1 ...].
        probability: in [0, 1].

    Raises:
        ValueError: condition and null don't have the same fields.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), Algorithm 1, line 3.
    """
    _check_same_fields(condition, null)
    drop = bernoulli(example_keys(key, index), probability)
    return jax.tree.map(lambda c, n: jnp.where(expand(drop, c), n, c), condition, null)


def _check_same_fields(condition: Condition, null: Condition) -> None:
    have = {name for name, value in condition._asdict().items() if value is not None}
    want = {name for name, value in null._asdict().items() if value is not None}
    if have != want:
        raise ValueError(
            f"the condition has the fields {sorted(have)} and its null {sorted(want)}; "
            "they must have the same."
        )
