"""How layers are cut among devices: one rule from a parameter's name and shape to its cut.

    data      batches are cut; parameters are whole on each
    fsdp      batches are cut, and so are parameters; each is gathered where it's read
    tensor    the features inside layers are cut; each example is shared by the axis

Sources: Rajbhandari et al. 2019, ZeRO (arXiv:1910.02054); Shoeybi et al. 2019, Megatron-LM
(arXiv:1909.08053), section 3; Xu et al. 2021, GSPMD (arXiv:2105.04663).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
# Layers that end a residual branch read what the axis "tensor" has cut, and sum over it.
READ_CUT_FEATURES = ("out", "mlp2", "conv2")
# Named like their matrix, but vectors of it: their last two axes aren't inputs and outputs.
FACTORS = frozenset({"v_row", "v_col"})
STACK = "blocks"  # the name of layers under a scan, whose first axis is the layer
LEAST = 4096  # elements; what is smaller costs more to gather than to keep


def cut_of(path: str, shape: Sequence[int], axes: Mapping[str, int]) -> PartitionSpec:
    """The cut of one leaf, of which the last two axes are a layer's inputs and outputs.

    - "tensor" takes the outputs, and the inputs of a layer named in `READ_CUT_FEATURES`;
    - "fsdp" takes the longer of the two that is left;
    - each only where it divides; leaves of fewer than `LEAST` elements are whole, and so are the
      sums over rows and columns that a factored optimizer keeps.

    Args:
        path: names from the root, joined by "/", such as "params/block0/mlp1/kernel".
        shape: the leaf's.
        axes: the size of each axis of the mesh, `mesh.shape`.

    >>> tuple(cut_of("params/block0/mlp1/kernel", (256, 1024), {"fsdp": 4, "tensor": 2}))
    ('fsdp', 'tensor')
    >>> tuple(cut_of("params/block0/mlp2/kernel", (1024, 256), {"fsdp": 4, "tensor": 2}))
    ('tensor', 'fsdp')
    """
    names = path.split("/")
    if math.prod(shape) < LEAST or not FACTORS.isdisjoint(names):
        return PartitionSpec()
    cut: list[str | None] = [None] * len(shape)
    layer = names[-2:-1]
    free = list(range(len(shape)))[-2:]
    parts = axes["tensor"]
    features = free[0] if layer and layer[0] in READ_CUT_FEATURES else free[-1]
    if parts > 1 and shape[features] % parts == 0:
        cut[features] = "tensor"
        free.remove(features)
    parts = axes["fsdp"]
    divisible = [axis for axis in free if shape[axis] % parts == 0]
    if parts > 1 and divisible:
        cut[max(divisible, key=lambda axis: shape[axis])] = "fsdp"
    while cut and cut[-1] is None:
        cut.pop()
    return PartitionSpec(*cut)


def cuts_of(tree: Any, axes: Mapping[str, int]) -> Any:
    """The cut of every leaf of a tree of arrays, or of their shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, x: cut_of(_path(keys), x.shape, axes),
        tree,
    )


def gathered(params: Any, *, stacks: bool = False) -> Any:
    """Parameters as a layer reads them: whole along "fsdp", still cut along "tensor".

    Told so, XLA gathers parameters, and never cuts activations along "fsdp" instead (with which its
    partitioner has been seen to compute another result for a U-Net on a mesh of all three axes).
    Their gradients come back cut, by a reduce-scatter. The mesh is the ambient one
    (`jax.sharding.use_abstract_mesh`); without one, or outside a transformation, nothing happens.

    Args:
        params: a tree of arrays.
        stacks: whether layers under a scan are gathered here, all of them at once, and not by the
            scan's body, one by one.
    """
    axes = jax.sharding.get_abstract_mesh().shape
    if axes.get("fsdp", 1) == 1:
        return params

    def gather(keys, x):
        path = _path(keys)
        if STACK in path.split("/") and not stacks:
            return x
        cut, whole = (cut_of(path, x.shape, {**axes, "fsdp": n}) for n in (axes["fsdp"], 1))
        return x if cut == whole else _gathered(cut, whole, x)

    return jax.tree_util.tree_map_with_path(gather, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(cut: PartitionSpec, whole: PartitionSpec, x: Any) -> Any:
    return jax.lax.with_sharding_constraint(x, whole)


def _forward(cut, whole, x):
    return _gathered(cut, whole, x), None


def _backward(cut, whole, _, cotangent):
    return (jax.lax.with_sharding_constraint(cotangent, cut),)


_gathered.defvjp(_forward, _backward)


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")
