"""Data parallelism: one mesh axis, batches cut along it, everything else whole everywhere."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the axis "data" over the first `devices` devices, all by default.

    Raises:
        ValueError: there aren't so many devices.
    """
    have = jax.devices()
    count = len(have) if devices is None else devices
    if not 1 <= count <= len(have):
        raise ValueError(f"{count} devices were asked for, and this machine has {len(have)}.")
    return Mesh(np.array(have[:count]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: parameters and optimizer state."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Cut along the first axis: batches."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_divides(
    batch_size: int, devices: int, *, parts: int = 1, what: str = "batch_size"
) -> None:
    """Raises ValueError unless each of `parts` micro-batches divides among the devices."""
    if batch_size < 1 or batch_size % (devices * parts):
        micro = f" in {parts} micro-batches" if parts > 1 else ""
        raise ValueError(
            f"{what} is {batch_size}, which doesn't divide among {devices} device(s){micro}; "
            f"use a multiple of {devices * parts}."
        )


def abstract_like(make, key, mesh: Mesh):
    """The shapes, dtypes and shardings of make(key) on every device, without making it."""
    whole = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(make, key)
    )
