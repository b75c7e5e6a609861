"""Floating-point operations of a JAX function, counted from the shapes of its products.

Only matrix products and convolutions count, a multiplication and an addition each, as is usual for
model FLOPs; what XLA reports misses convolutions that run in libraries. A loop counts as often as
it runs; where that isn't known (`while`), once. Rows that a strided convolution's gradient fills
with zeros don't count. What rematerialisation computes again does.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count_flops(function: Callable, *arguments: Any) -> int:
    """Operations of function(*arguments); arrays may be `jax.ShapeDtypeStruct`s.

    >>> import jax.numpy as jnp
    >>> count_flops(jnp.dot, jnp.zeros((3, 4)), jnp.zeros((4, 5)))
    120
    """
    return flops_of(jax.make_jaxpr(function)(*arguments))


def flops_of(jaxpr: core.ClosedJaxpr) -> int:
    """Operations of a traced function, such as jitted.trace(*arguments).jaxpr."""
    return _of_jaxpr(jaxpr.jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        numbers = params["dimension_numbers"]
        inputs, taps = kernel[numbers.rhs_spec[1]], [kernel[i] for i in numbers.rhs_spec[2:]]
        zeros = math.prod(params["lhs_dilation"])
        return 2 * equation.outvars[0].aval.size * inputs * math.prod(taps) // zeros
    inner = [_of_jaxpr(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
