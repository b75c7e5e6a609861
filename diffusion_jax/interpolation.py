"""Between two pictures, codes or conditions."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from diffusion_jax.checks import check_one_each
from diffusion_jax.processes import divide, expand
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Scalar

Tree = TypeVar("Tree", bound=PyTree)


def slerp(a: Array, b: Array, weight: Scalar) -> Array:
    """From a to b along the sphere, each example by itself, over all of its dimensions.

        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b

    with the angle theta between a and b. Codes of noise keep their norm so, and stay codes of
    noise. Where a and b are parallel it is `lerp`, and where they are opposite, too, as no arc
    is the shortest.

    Args:
        a: [b ...].
        b: the shape of a.
        weight: w, 0 gives a and 1 gives b, exactly; a scalar or [b]. Traced.

    Raises:
        ValueError: a and b have different shapes, or the weight is neither a scalar nor [b].

    Source: Song et al. 2021 (arXiv:2010.02502), appendix D.5.
    """
    _check_alike(a, b, weight)
    axes = tuple(range(1, a.ndim))
    norm_a, norm_b = (safe_sqrt(jnp.sum(v**2, axes, keepdims=True)) for v in (a, b))
    u, v = divide(a, norm_a), divide(b, norm_b)
    difference, total = (safe_sqrt(jnp.sum(d**2, axes, keepdims=True)) for d in (u - v, u + v))
    theta = 2.0 * jnp.arctan2(difference, total)  # exact for small angles, where arccos isn't
    w = _expanded(weight, a)
    straight = jnp.sin(theta) < 1e-5
    sine = jnp.where(straight, 1.0, jnp.sin(theta))
    first = jnp.where(straight, 1.0 - w, jnp.sin((1.0 - w) * theta) / sine)
    second = jnp.where(straight, w, jnp.sin(w * theta) / sine)
    return jnp.where(w == 0, a, jnp.where(w == 1, b, first * a + second * b))


def lerp(a: Tree, b: Tree, weight: Scalar) -> Tree:
    """(1 - w) a + w b in every array, such as the fields of two Conditions.

    A bool, such as `Condition.mask`, is true where either is; at w = 0 and 1 it is a's and b's.

    Args:
        a: a pytree of arrays [b ...].
        b: one like it.
        weight: w, a scalar or [b]. Traced.

    Raises:
        ValueError: an array of integers, which has nothing in between; a and b differ in their
            structure or shapes, or the weight is neither a scalar nor [b].
    """
    one, other = str(jax.tree.structure(a)), str(jax.tree.structure(b))
    if one != other:
        raise ValueError(f"a is a {one} and b a {other}; they must be alike.")

    def between(a: Array, b: Array) -> Array:
        _check_alike(a, b, weight)
        w = _expanded(weight, a)
        if jnp.issubdtype(a.dtype, jnp.integer):
            raise ValueError(
                f"there is nothing between integers, but an array is {a.dtype}; interpolate what "
                "they stand for, such as the one-hot vectors of labels."
            )
        middle = a | b if a.dtype == bool else (1.0 - w) * a + w * b
        return jnp.where(w == 0, a, jnp.where(w == 1, b, middle))

    return jax.tree.map(between, a, b)


def _check_alike(a: Array, b: Array, weight: Scalar) -> None:
    if a.shape != b.shape or (a.dtype == bool) != (b.dtype == bool):
        raise ValueError(
            f"a is {a.dtype} of shape {a.shape} and b {b.dtype} of shape {b.shape}; they must be "
            "alike."
        )
    check_one_each("the weight", weight, a.shape[0])


def _expanded(weight: Scalar, x: Array) -> Array:
    weight = jnp.asarray(weight)
    return expand(weight, x) if weight.ndim else weight
