"""What a run is about to do, in two lines: who holds what, and how much there is to compute."""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from diffusion_jax.training.sharding import batch_parts, bytes_a_device, tree_bytes
from diffusion_jax.training.step import State


def plan(mesh: Mesh, like: State, batch_size: int, flops: int) -> str:
    """The mesh's axes, bytes a device, parameters and operations a step.

    Args:
        like: the state's shapes, dtypes and shardings.
        batch_size: examples a step.
        flops: floating-point operations of a step, of all devices together.
    """
    return (
        f"mesh {axes_of(mesh)}: {mesh.size} x {mesh.devices.flat[0].device_kind}, "
        f"{batch_size // batch_parts(mesh)} of {batch_size} examples each\n"
        f"{size_of(like)}; {in_units(flops)}FLOP a step"
    )


def axes_of(mesh: Mesh) -> str:
    """A mesh's axes and their sizes."""
    return ", ".join(f"{name} {size}" for name, size in mesh.shape.items())


def size_of(like: Any) -> str:
    """A state's parameters, its bytes, and a device's share of them."""
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(like.params))
    return (
        f"{in_units(parameters).rstrip()} parameters; state {in_units(tree_bytes(like))}B, "
        f"{in_units(bytes_a_device(like))}B a device"
    )


def in_units(count: int | float) -> str:
    """Four digits and a unit of thousands.

    >>> in_units(35_746_307), in_units(12), in_units(2.5e12)
    ('35.75 M', '12 ', '2.5 T')
    """
    for unit in ("", "k", "M", "G", "T"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} P"
