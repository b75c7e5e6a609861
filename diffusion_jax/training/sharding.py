"""Which device holds what: a mesh of three axes, and one rule for every array of the state.

Batches lie along (data, fsdp). A leaf's cut follows from its name and shape alone
(`models.cuts.cut_of`), so the parameters, their moments and their average, whose names end alike,
lie alike.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffusion_jax.models.cuts import AXES, BATCH, cuts_of


def make_mesh(
    data: int | None = None,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | int | None = None,
) -> Mesh:
    """A mesh (data, fsdp, tensor) over devices, all of the job's by default.

    On a TPU the axes follow the wires: tensor, the busiest, is laid to neighbours; between slices,
    which only the network joins, lies data.

    Args:
        data: copies; by default as many as the devices allow.
        fsdp: parts that the state is cut into.
        tensor: parts that a layer's features are cut into.
        devices: the devices, or how many of `jax.devices()`.

    Raises:
        ValueError: there aren't so many devices, or they don't make such a mesh.
    """
    found = _first(jax.devices(), devices) if not isinstance(devices, Sequence) else devices
    count = len(found)
    for name, size in {"data": data, "fsdp": fsdp, "tensor": tensor}.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1.")
    rest = fsdp * tensor
    copies = count // rest if data is None else data
    if copies * rest != count:
        asked = f"data {'as many as fit' if data is None else data}, fsdp {fsdp}, tensor {tensor}"
        raise ValueError(f"{count} device(s) don't make a mesh of {asked}.")
    return Mesh(
        _laid(np.array(found), (copies, fsdp, tensor)),
        AXES,
        axis_types=(AxisType.Auto,) * 3,
    )


@dataclass(frozen=True)
class MeshOptions:
    """Which devices, and how they share the work."""

    devices: int | None = None
    """devices to use (default: all)"""
    data: int | None = None
    """copies of the state that share a batch (default: as many as the devices allow)"""
    fsdp: int | None = None
    """parts that the state is cut into, which share a batch too (default: 1, or as many as it
    takes for the state to fill at most half of a device's memory)"""
    tensor: int = 1
    """parts that a layer's features are cut into"""

    def make(
        self,
        state_bytes: int = 0,
        found: Sequence[Any] | None = None,
        memory: int | None = None,
    ) -> Mesh:
        """The mesh; raises as `make_mesh`.

        Args:
            state_bytes: of the whole state, by which fsdp is chosen where it isn't given.
            found: devices to choose from, `jax.devices()` by default.
            memory: bytes of one, which it is asked for by default.
        """
        used = _first(jax.devices() if found is None else found, self.devices)
        fsdp = self.fsdp
        if fsdp is None:
            if memory is None and self.data is None:
                memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
            fsdp = parts_that_fit(state_bytes, memory, len(used) // max(1, self.tensor))
            if self.data:
                fsdp = max(1, len(used) // max(1, self.data * self.tensor))
        return make_mesh(self.data, fsdp, self.tensor, used)


def _first(found: Sequence[Any], count: int | None) -> list[Any]:
    """The first devices; all where no number is given."""
    if count is not None and not 1 <= count <= len(found):
        raise ValueError(f"{count} devices were asked for, and there are {len(found)}.")
    return list(found[:count])


def parts_that_fit(state_bytes: int, memory: int | None, devices: int) -> int:
    """The fewest parts, dividing the devices, of which one fills at most half of a memory.

    As many as there are devices where none does; 1 where the memory isn't known.
    """
    if not memory:
        return 1
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    return next((n for n in divisors if state_bytes / n <= memory / 2), max(devices, 1))


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def bytes_a_device(tree: Any) -> int:
    """Bytes of a tree that one device holds, from the leaves' shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _laid(devices: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    slices = len({getattr(d, "slice_index", 0) for d in devices})
    if slices > 1:
        if shape[0] % slices:
            raise ValueError(f"data is {shape[0]}, which doesn't divide among {slices} slices.")
        inside = (shape[0] // slices, *shape[1:])
        return mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices.tolist())
    return mesh_utils.create_device_mesh(shape, devices.tolist(), allow_split_physical_axes=True)


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh with everything on "data" over the first `devices` devices, all by default."""
    return make_mesh(devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device: keys, metrics, numbers."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Cut along the first axis: batches."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def batch_parts(mesh: Mesh) -> int:
    """How many parts a batch is cut into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def cut_like(tree: Any, mesh: Mesh) -> Any:
    """The shardings of a tree of arrays, or of their shapes, by `models.cuts.cut_of`."""
    return jax.tree.map(lambda cut: NamedSharding(mesh, cut), cuts_of(tree, mesh.shape))


def under(mesh: Mesh, function: Callable) -> Callable:
    """The function, to be jitted; while it's traced its layers know the mesh they're cut along."""

    @functools.wraps(function)
    def traced(*arguments):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return traced


def place(tree: Any, mesh: Mesh) -> Any:
    """The tree's arrays, on the mesh as `cut_of` says."""
    return jax.device_put(tree, cut_like(tree, mesh))


def spread(tree: Any, mesh: Mesh) -> Any:
    """Arrays [b ...] that every process has whole, cut along the first axis."""
    cut = batched(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, cut, lambda index: x[index]), tree
    )


def copied(tree: Any, mesh: Mesh) -> Any:
    """Arrays, which may lie on one device, whole on every device of a mesh."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(jax.device_get(tree))


def abstract_like(make: Callable, key: jax.Array, mesh: Mesh) -> Any:
    """The shapes, dtypes and shardings of make(key), without making it."""
    shapes = jax.eval_shape(make, key)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        cut_like(shapes, mesh),
    )


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree of arrays, or of `jax.ShapeDtypeStruct`s that have them."""
    return jax.tree.map(lambda x: x.sharding, tree)


def check_divides(
    batch_size: int, devices: int, *, parts: int = 1, what: str = "batch_size"
) -> None:
    """Raises ValueError unless each of `parts` micro-batches divides among the devices."""
    if batch_size < 1:
        raise ValueError(f"{what} is {batch_size}; it must be at least 1.")
    if batch_size % (devices * parts):
        micro = f" in {parts} micro-batches" if parts > 1 else ""
        raise ValueError(
            f"{what} is {batch_size}, which doesn't divide among {devices} device(s){micro}; "
            f"use a multiple of {devices * parts}."
        )
