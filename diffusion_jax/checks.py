"""What the library refuses before any work: shapes always, values where they are known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def has_values(*arrays: Any) -> bool:
    """Whether none of these is traced, so that their values can be looked at."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def check_between(what: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError for a number out of [low, high], or NaN; what is traced may be anything."""
    if not has_values(value):
        return
    numbers = np.asarray(value, np.float64)
    wrong = numbers[~((low <= numbers) & (numbers <= high))]
    if wrong.size:
        raise ValueError(f"{what} is {wrong[0]:g}; it must be from {low:g} to {high:g}.")


def check_pixels(what: str, image: Any) -> None:
    """Raises ValueError for levels 0..255, or other integers, where pixels should be."""
    if not jnp.issubdtype(jnp.result_type(image), jnp.floating):
        raise ValueError(
            f"{what} is {jnp.result_type(image)}; pixels are floating point, in [-1, 1]."
        )


def check_one_each(what: str, value: Any, count: int) -> None:
    """Raises ValueError unless it is a scalar or has one number for each of `count` examples."""
    shape = np.shape(value)
    if shape not in ((), (count,)):
        raise ValueError(f"{what} has shape {shape}; it is a scalar, or [b] = ({count},).")


def check_index(index: Any, count: int) -> None:
    """Raises ValueError unless there is a number for each of `count` examples."""
    if np.shape(index) != (count,):
        raise ValueError(f"index has shape {np.shape(index)}; there are {count} examples.")


def check_descends(times: Any, least: int) -> None:
    """Raises ValueError unless this is a grid of at least `least` steps that doesn't rise."""
    if np.ndim(times) != 1 or len(times) <= least:
        raise ValueError(
            f"times has shape {np.shape(times)}; a grid is [n + 1] with n at least {least}."
        )
    if not has_values(times):
        return
    known = np.asarray(times)
    if not np.all(np.diff(known) <= 0):
        raise ValueError(f"times runs from {known[0]:g} to {known[-1]:g}; it must descend.")
