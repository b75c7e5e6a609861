"""What a run is about to do, in two lines: who holds what, and how much there is to compute."""

import jax
from jax.sharding import Mesh

from diffusion_jax.training.sharding import AXES, batch_parts, bytes_a_device, tree_bytes
from diffusion_jax.training.step import State


def plan(mesh: Mesh, like: State, batch_size: int, flops: int) -> str:
    """The mesh's axes, bytes a device, parameters and operations a step.

    Args:
        like: the state's shapes, dtypes and shardings.
        batch_size: examples a step.
        flops: floating-point operations of a step, of all devices together.
    """
    device = mesh.devices.flat[0]
    axes = ", ".join(f"{name} {mesh.shape[name]}" for name in AXES)
    parameters = sum(x.size for x in jax.tree.leaves(like.params))
    return (
        f"mesh {axes}: {mesh.size} x {device.device_kind}, "
        f"{batch_size // batch_parts(mesh)} of {batch_size} examples each\n"
        f"{in_units(parameters)} parameters; state {in_units(tree_bytes(like))}B, "
        f"{in_units(bytes_a_device(like))}B a device; {in_units(flops)}FLOP a step"
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
