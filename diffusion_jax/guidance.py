"""Guidance: functions from denoisers to denoisers.

Classifier-free guidance in the gamma convention, where 0 is unconditional, 1 conditional:

    eps-bar = eps(null) + gamma (eps(c) - eps(null))                                    (1)

Ho & Salimans write (1 + w) eps(c) - w eps(null): gamma = 1 + w. Of several conditions,

    eps-bar = eps(null) + sum_i gamma_i (eps(c_i) - eps(null)).                         (2)

Both are linear, so they hold for x0, and for whatever else a network predicts, as for eps. A
learned variance isn't guided: it is the conditional's, with several conditions the first's.

A scale is a number, one for each example [b], or a function of t, as `within` makes; all may be
traced. Guidance by gradients is in `classifier_guidance`.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.checks import check_between, has_values
from diffusion_jax.conditions import check_same_fields
from diffusion_jax.processes import expand
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import (
    Condition,
    Denoiser,
    Network,
    Prediction,
    Process,
    Scalar,
    Time,
)

Scale: TypeAlias = Scalar | Callable[[Time], Array]  # a number, [b], or a function of t
Combine = Callable[[Array, Array, Array], Array]  # (conditional, unconditional, scale) -> guided
Conditioned = Callable[[Array, Time, Condition], Array]  # a network that is told the condition


def scale_at(scale: Scale, t: Time, x: Array) -> Array:
    """The scale at t: a scalar, or with the rank of x.

    Raises:
        ValueError: it is neither a scalar nor [b].
    """
    value = jnp.asarray(scale(t) if callable(scale) else scale)
    if value.ndim == 0:
        return value
    if value.shape != t.shape:
        raise ValueError(f"the scale has shape {value.shape}; it is a scalar, or [b] = {t.shape}.")
    return expand(value, x)


def within(
    scale: Scale, low: Scalar, high: Scalar, outside: Scalar = 1.0
) -> Callable[[Time], Array]:
    """The scale where low <= t <= high, and `outside` elsewhere: guidance in an interval.

    The paper's limits are noise levels sigma/alpha: t = process.time_at(-2 log(level)).

    Args:
        scale: a number, [b], or a function of t.
        low, high: times. Traced.
        outside: no guidance: 1 for gamma, 0 for the scale of a gradient. Traced.

    Raises:
        ValueError: not low <= high.

    Source: Kynkaanniemi et al. 2024 (arXiv:2404.07724), section 3.
    """
    if has_values(low, high) and not np.all(np.less_equal(low, high)):
        raise ValueError(f"the interval is from {low} to {high}; it must be from low to high.")

    def interval(t: Time) -> Array:
        return jnp.where((low <= t) & (t <= high), scale_at(scale, t, t), outside)

    return interval


def extrapolate(conditional: Array, unconditional: Array, scale: Array) -> Array:
    """Equation (1)."""
    return _summed([conditional], unconditional, [scale])


def rescaled(phi: Scalar) -> Combine:
    """Equation (1), with the standard deviation brought back to the conditional's.

        guided (phi std(conditional) / std(guided) + 1 - phi)

    Each example has its standard deviation, over all of its dimensions.

    Args:
        phi: 0 is `extrapolate`, 1 all the way back; the authors' is 0.7. Traced.

    Raises:
        ValueError: phi isn't from 0 to 1.

    Source: Lin et al. 2023 (arXiv:2305.08891), equations (14) to (16).
    """
    check_between("phi", phi, 0.0, 1.0)

    def combine(conditional: Array, unconditional: Array, scale: Array) -> Array:
        guided = extrapolate(conditional, unconditional, scale)
        axes = tuple(range(1, guided.ndim))
        wanted, found = (safe_sqrt(jnp.var(v, axes, keepdims=True)) for v in (conditional, guided))
        factor = jnp.where(found == 0, 1.0, wanted / jnp.where(found == 0, 1.0, found))
        return guided * (phi * factor + 1.0 - phi)

    return combine


def classifier_free(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: Scale,
    *,
    combine: Combine = extrapolate,
    process: Process | None = None,
) -> Denoiser:
    """Equation (1) on the x0 and noise of two denoisers; both are called.

    Args:
        conditional: the denoiser that knows the condition.
        unconditional: the one that doesn't.
        scale: gamma.
        combine: another rule than equation (1), such as `rescaled(0.7)`, for x0 in pixels.
        process: makes the noise that goes with this x0; only needed with another rule.

    Raises:
        ValueError: another rule without the process.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), equation (6).
    """
    if process is None:
        if combine is not extrapolate:
            raise ValueError(
                "classifier_free has a combine that may not be linear, and no process: give it "
                "process=..., which makes the noise that goes with the combined x0."
            )
        return composed([conditional], unconditional, [scale])

    def guided(x: Array, t: Time) -> Prediction:
        c, u = conditional(x, t), unconditional(x, t)
        pixels = combine(process.decode(c.x0), process.decode(u.x0), scale_at(scale, t, x))
        return process.complete(x, t, process.encode(pixels))._replace(variance=c.variance)

    return guided


def classifier_free_fused(
    network: Conditioned,
    condition: Condition,
    null: Condition,
    scale: Scale,
    *,
    combine: Combine = extrapolate,
) -> Network:
    """Equation (1) as one network call on a batch of 2b, in the network's own output.

    x0 and noise are linear in y, so guiding y guides both alike.

    Args:
        network: (x, t, condition) -> y, maybe with a learned variance in further channels.
        condition: fields [b ...].
        null: the same fields for "no condition", [b ...] or [1 ...].
        scale: gamma.
        combine: another rule than equation (1), such as `rescaled(0.7)`, for y.

    Returns:
        A network (x, t) -> y.

    Raises:
        ValueError: condition and null don't have the same fields and shapes, or not x's batch.
    """

    def rule(conditionals: list[Array], unconditional: Array, scales: list[Array]) -> Array:
        return combine(conditionals[0], unconditional, scales[0])

    return _fused(network, [condition], null, [scale], rule)


def composed(
    conditionals: Sequence[Denoiser], unconditional: Denoiser, scales: Sequence[Scale] | Array
) -> Denoiser:
    """Equation (2): several conditions together, AND by positive scales, NOT by negative ones.

    Its score is that of q(x) prod_i (q(x | c_i) / q(x))^gamma_i at every t. All n + 1
    denoisers are called.

    Args:
        conditionals: n denoisers, each knows one condition.
        unconditional: the one that knows none.
        scales: n gammas, each as in `classifier_free`.

    Raises:
        ValueError: not one scale for each conditional.

    Source: Liu et al. 2022 (arXiv:2206.01714), conjunction and negation, Algorithm 1.
    """
    _check_count(conditionals, scales)

    def guided(x: Array, t: Time) -> Prediction:
        predictions, u = [c(x, t) for c in conditionals], unconditional(x, t)
        gammas = [scale_at(scale, t, x) for scale in scales]
        return predictions[0]._replace(
            x0=_summed([p.x0 for p in predictions], u.x0, gammas),
            noise=_summed([p.noise for p in predictions], u.noise, gammas),
        )

    return guided


def composed_fused(
    network: Conditioned,
    conditions: Sequence[Condition],
    null: Condition,
    scales: Sequence[Scale] | Array,
) -> Network:
    """Equation (2) as one network call on a batch of (n + 1) b, as `classifier_free_fused`.

    Args:
        network: (x, t, condition) -> y.
        conditions: n conditions, each with fields [b ...].
        null: the same fields for "no condition", [b ...] or [1 ...].
        scales: n gammas.

    Returns:
        A network (x, t) -> y.

    Raises:
        ValueError: not one scale for each condition, or they haven't the fields and shapes of
            null, or not x's batch.
    """
    _check_count(conditions, scales)
    return _fused(network, conditions, null, scales, _summed)


def _summed(conditionals: list[Array], unconditional: Array, scales: list[Array]) -> Array:
    """Equation (2)."""
    total = unconditional
    for conditional, scale in zip(conditionals, scales, strict=True):
        total = total + scale * (conditional - unconditional)
    return total


def _fused(network, conditions, null, scales, rule) -> Network:
    for condition in conditions:
        check_same_fields(condition, null)
    count = len(conditions) + 1

    def guided(x: Array, t: Time) -> Array:
        for value in jax.tree.leaves(list(conditions)):
            if value.shape[0] != x.shape[0]:
                raise ValueError(
                    f"the condition has shape {value.shape}, and x has {x.shape[0]} examples."
                )

        def together(*parts):
            return jnp.concatenate([jnp.broadcast_to(p, parts[0].shape) for p in parts])

        every = jax.tree.map(together, *conditions, null)
        answers = network(jnp.concatenate([x] * count), jnp.concatenate([t] * count), every)
        # Channels that x hasn't are a learned variance, which isn't linear in the condition.
        y, variance = answers[..., : x.shape[-1]], answers[..., x.shape[-1] :]
        *conditionals, unconditional = jnp.split(y, count)
        out = rule(conditionals, unconditional, [scale_at(scale, t, x) for scale in scales])
        if not variance.shape[-1]:
            return out
        return jnp.concatenate([out, variance[: x.shape[0]].astype(out.dtype)], axis=-1)

    return guided


def _check_count(conditions: Sequence, scales: Sequence | Array) -> None:
    if len(conditions) != len(scales) or not len(conditions):
        raise ValueError(
            f"there are {len(conditions)} conditions and {len(scales)} scales; composition takes "
            "one scale for each condition, and at least one."
        )
