"""How another library names and lays out the parameters that we have: a table, read both ways.

A row says which arrays of ours make one of theirs. Layers under a scan are one array of ours with
a layer axis, and an array for each layer there: the name has "{}" where the layer's number goes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.interop.safetensors import Tensors
from diffusion_jax.types import Params

_NAMED = 8  # problems, in a message
FLOATS = ("F16", "BF16", "F32", "F64")
Shapes = Mapping[str, tuple[int, ...]]


class Form(NamedTuple):
    """How one array is laid out here and there."""

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray], np.ndarray]


SAME = Form(lambda x: x, lambda x: x)
LINEAR = Form(lambda x: x.T, lambda x: x.T)  # [in, out], and [out, in] there
CONVOLUTION = Form(  # [h, w, in, out], and [out, in, h, w] there
    lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0)
)
POINT = Form(  # a linear layer of pixels, [in, out], and a convolution's [out, in, 1, 1] there
    lambda x: x.T[:, :, None, None], lambda x: x[:, :, 0, 0].T
)


def patches(patch: int) -> Form:
    """[patch * patch * in, out], and a convolution's [out, in, patch, patch] there."""

    def theirs(x: np.ndarray) -> np.ndarray:
        return CONVOLUTION.theirs(x.reshape(patch, patch, -1, x.shape[-1]))

    return Form(theirs, lambda x: CONVOLUTION.ours(x).reshape(-1, x.shape[0]))


class Row(NamedTuple):
    """One array of theirs, or one for each layer.

    Attributes:
        theirs: its name.
        ours: paths joined by "/"; of several, theirs is their concatenation.
        form: of each of ours.
        depth: layers; 0 where there is no "{}".
    """

    theirs: str
    ours: tuple[str, ...]
    form: Form = SAME
    depth: int = 0

    def names(self) -> list[str]:
        return [self.theirs.format(i) for i in range(self.depth)] or [self.theirs]


def linear(
    theirs: str, ours: str, depth: int = 0, *, bias: bool = True, form: Form = LINEAR
) -> list[Row]:
    """The rows of a linear layer, or of a convolution, as the form of its kernel says."""
    rows = [Row(f"{theirs}.weight", (f"{ours}/kernel",), form, depth)]
    return rows + [Row(f"{theirs}.bias", (f"{ours}/bias",), SAME, depth)] * bias


def norm(theirs: str, ours: str, depth: int = 0) -> list[Row]:
    """The rows of a norm with a scale and a bias."""
    return [
        Row(f"{theirs}.weight", (f"{ours}/scale",), SAME, depth),
        Row(f"{theirs}.bias", (f"{ours}/bias",), SAME, depth),
    ]


def flat(tree: Any) -> dict[str, Any]:
    """path -> leaf."""
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
        for keys, leaf in jax.tree.leaves_with_path(tree)
    }


def nested(leaves: Mapping[str, Any]) -> Params:
    """The tree of path -> leaf."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def their_shapes(rows: Iterable[Row], ours: Shapes) -> dict[str, tuple[int, ...]]:
    """name -> shape of what a file in their layout has, for parameters of these shapes."""
    blank = {path: np.broadcast_to(np.float32(0), shape) for path, shape in ours.items()}
    return {name: array.shape for name, array in _theirs(rows, blank)}


def to_theirs(rows: Iterable[Row], params: Mapping[str, Any]) -> Callable[[str], np.ndarray]:
    """name -> the array, in their layout; of a flat tree of parameters."""
    of = {name: (row, i) for row in rows for i, name in enumerate(row.names())}

    def read(name: str) -> np.ndarray:
        row, layer = of[name]
        return _one(row, layer, params)

    return read


def checked(params: Params, ours: Shapes, what: str) -> dict[str, Any]:
    """path -> leaf, for parameters of exactly these shapes.

    Raises:
        ValueError: they are of another network than `what`.
    """
    leaves = flat(params)
    found = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    if found != ours:
        wrong = sorted(path for path in found.keys() | ours if found.get(path) != ours.get(path))
        raise ValueError(
            f"these aren't this {what}'s parameters: {', '.join(wrong)} lack, are too many, or "
            "have other shapes."
        )
    return leaves


def _theirs(rows: Iterable[Row], ours: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for row in rows:
        for i, name in enumerate(row.names()):
            yield name, _one(row, i, ours)


def _one(row: Row, layer: int, ours: Mapping[str, Any]) -> np.ndarray:
    leaves = (ours[path][layer] if row.depth else ours[path] for path in row.ours)
    parts = [row.form.theirs(np.asarray(leaf)) for leaf in leaves]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def from_theirs(
    tensors: Tensors,
    rows: Sequence[Row],
    ours: Shapes,
    ignored: Callable[[str], bool],
    dtype: Any = jnp.float32,
) -> Params:
    """Our parameters, of a file in their layout, which is read array by array.

    Args:
        tensors: the file.
        rows: the table.
        ours: path -> shape of what is wanted.
        ignored: which names of theirs are no parameters.
        dtype: in which they are kept.

    Raises:
        ValueError: names that lack, that nobody asked for, other shapes or dtypes: the first of
            all.
    """
    _compare(tensors, their_shapes(rows, ours), ignored)
    leaves: dict[str, Any] = {}
    for row in rows:
        arrays = [_empty(ours[path], np.dtype(dtype)) for path in row.ours]
        for i, name in enumerate(row.names()):
            parts = np.split(tensors.read(name), len(arrays)) if len(arrays) > 1 else None
            for array, part in zip(arrays, parts or [tensors.read(name)], strict=True):
                (array[i] if row.depth else array)[...] = row.form.ours(part)
        leaves.update(zip(row.ours, map(jnp.asarray, arrays), strict=True))
    return nested(leaves)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """At a multiple of 64 bytes, from where JAX on a CPU takes an array without a copy."""
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _compare(tensors: Tensors, wanted: Shapes, ignored: Callable[[str], bool]) -> None:
    """Refuses, in one sentence for each array, a file that isn't what is wanted."""
    problems = [f"{name} is missing" for name in wanted if name not in tensors.shapes]
    for name, shape in tensors.shapes.items():
        if name not in wanted:
            if not ignored(name):
                problems.append(f"{name} has no counterpart here")
        elif shape != wanted[name]:
            problems.append(f"{name} has shape {shape}, and {wanted[name]} is wanted")
        elif tensors.dtypes[name] not in FLOATS:
            problems.append(f"{name} has dtype {tensors.dtypes[name]}, and floats are wanted")
    if problems:
        raise ValueError(
            f"{tensors.where} doesn't fit, in {len(problems)} arrays:{first_of(problems)}"
        )


def first_of(problems: Sequence[str]) -> str:
    """The first problems in alphabetical order, a line each, and how many more there are."""
    lines = sorted(problems)
    if len(lines) > _NAMED:
        lines[_NAMED:] = [f"and {len(lines) - _NAMED} more"]
    return "".join(f"\n  {line};" for line in lines)[:-1] + "."
