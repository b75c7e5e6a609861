"""What a checkpoint says of its leaves: path, shape, dtype, fingerprint; and whether they fit."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from diffusion_jax.training.fingerprints import fingerprint

PyTree = Any
Leaves = dict[str, Any]
_NAMED = 8


class CheckpointMismatch(ValueError):
    """The checkpoint is whole, and belongs to another model or optimizer."""


def flatten(tree: PyTree, prefix: str) -> Leaves:
    flat: Leaves = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        path = "/".join(filter(None, [prefix, name]))
        x = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        if not isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
            raise TypeError(f"{path} is {leaf!r}: a checkpoint holds arrays only")
        if jnp.issubdtype(x.dtype, jax.dtypes.extended) or x.dtype == object:
            raise TypeError(f"{path} has dtype {x.dtype}: a checkpoint holds plain arrays only")
        if not path:
            raise ValueError("the state must be a container of arrays, not an array")
        if path in flat:
            raise ValueError(f"two leaves have the path {path!r}")
        flat[path] = x
    for path in flat:
        for parent in (path[: slash.start()] for slash in re.finditer("/", path)):
            if parent in flat:
                raise ValueError(f"{parent!r} is a leaf, and the beginning of the leaf {path!r}")
    return flat


def describe(x: Any, print_: int) -> dict[str, Any]:
    return {"shape": [*x.shape], "dtype": np.dtype(x.dtype).name, "fingerprint": f"{print_:016x}"}


def whole_prints(values: Leaves) -> dict[str, int]:
    """Each array's fingerprint, from what all processes hold of it."""
    own = {path: fingerprint(x) for path, x in values.items()}
    if jax.process_count() == 1:
        return own
    halves = np.array([[n >> 32, n & 0xFFFFFFFF] for n in own.values()], np.uint32)
    everyone = multihost_utils.process_allgather(halves).astype(object)
    sums = (everyone[..., 0] * 2**32 + everyone[..., 1]).sum(0)
    return {path: int(n) % 2**64 for path, n in zip(own, sums, strict=True)}


def compare(saved: dict[str, dict[str, Any]], wanted: Leaves, where: Path) -> None:
    kinds = {path: (tuple(entry["shape"]), entry["dtype"]) for path, entry in saved.items()}
    problems = _misfits(kinds, wanted)
    if problems:
        raise CheckpointMismatch(
            f"{where} is a checkpoint of another model or optimizer: {some(problems)}"
        )
    for x in wanted.values():
        if not isinstance(x, np.ndarray) and x.sharding is not None:
            x.sharding.shard_shape(x.shape)  # its own error, rather than one that looks like damage


def check_alike(found: PyTree, wanted: PyTree, what: str) -> None:
    """Raises ValueError unless both have the same leaves, shapes and dtypes."""
    kinds = {path: _kind(x) for path, x in flatten(found, "").items()}
    problems = _misfits(kinds, flatten(wanted, ""))
    if problems:
        raise ValueError(f"{what} don't fit the recipe's network: {some(problems)}")


def _misfits(kinds: dict[str, tuple[tuple[int, ...], str]], wanted: Leaves) -> list[str]:
    asked = {path: _kind(x) for path, x in wanted.items()}
    problems = [f"{path} is missing" for path in asked if path not in kinds]
    problems += [f"{path} is unexpected" for path in kinds if path not in asked]
    return problems + [
        f"{path} is {_spell(kinds[path])} where {_spell(kind)} is wanted"
        for path, kind in asked.items()
        if path in kinds and kinds[path] != kind
    ]


def is_below(path: str, prefix: str) -> bool:
    return not prefix or f"{path}/".startswith(f"{prefix}/")


def _kind(x: Any) -> tuple[tuple[int, ...], str]:
    return tuple(x.shape), np.dtype(x.dtype).name


def _spell(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[1]}[{','.join(map(str, kind[0]))}]"


def some(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
