"""Checkpoints that are atomic, verified, and fall back.

A checkpoint of step 120 is the folder `120/`:

    state/              the leaves, written by Orbax as a flat dict from path to array
    checkpoint.json     step, metadata, size and checksum of the files, and for every leaf its
                        shape, dtype and a hash of its bytes

The JSON carries a hash of itself. Restoring compares the leaves with those asked for before it
reads anything, because Orbax loads partial trees silently, and the hashes afterwards, because Orbax
keeps none: a missing chunk reads as zeros. Leaves without elements, which Orbax refuses, live in
the JSON only.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from diffusion_jax.training import files

PyTree = Any
Leaves = dict[str, Any]
Warn = Callable[[str], None]
_DOCUMENT = "checkpoint.json"
_STATE = "state"
_NAMED = 8
_ELSEWHERE = "another process could not read it"


class Restored(NamedTuple):
    """A checkpoint that was read and verified."""

    step: int
    state: PyTree
    metadata: dict[str, Any]


class CheckpointMismatch(ValueError):
    """The checkpoint is whole, and belongs to another model or optimizer."""


class CheckpointCorrupted(RuntimeError):
    """Every checkpoint that was asked for is damaged."""


def save(
    folder: Path, step: int, state: PyTree, metadata: dict[str, Any], *, keep: int = 2
) -> Path:
    """Writes a checkpoint, and returns when it is whole on disk.

    It appears under its name at once or not at all, and older ones are removed only afterwards. A
    checkpoint of the same step is replaced. Later steps, which a run that was rewound leaves
    behind, are not touched. With several processes all of them call it, on a file system they
    share; the metadata of process 0 is kept.

    Args:
        folder: the folder of all checkpoints of a run; made if missing.
        step: the step, at least 0.
        state: a pytree of arrays (no typed random keys).
        metadata: what JSON can hold: the position in the data, the seed.
        keep: how many checkpoints to keep, this one and those before it; at least 1.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: the disk is full or can't be written; the checkpoints from before are intact.
        TypeError: a leaf is not an array, or metadata is not JSON.
        ValueError: two leaves have the same path, or step or keep is out of range.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be at least 0 and keep at least 1, not {step} and {keep}")
    folder = Path(folder).absolute()
    leaves = _flatten(state, "")
    manifest = {path: _describe(x) for path, x in leaves.items()}
    document = {"step": step, "metadata": metadata, "leaves": manifest}
    files.seal(document)  # what JSON can't hold is refused before anything is written
    written = files.temporary(folder, step)
    try:
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            files.clear_leftovers(folder)
            written.mkdir()
        _wait_for_all("checkpoint: cleared")
        files.write_arrays(written / _STATE, {path: x for path, x in leaves.items() if x.size})
        if jax.process_index() == 0:
            document["files"] = files.inventory(written)
            (written / _DOCUMENT).write_text(files.seal(document))
            files.commit(folder, step)
        _wait_for_all("checkpoint: written")
    except BaseException as error:
        if jax.process_index() == 0:
            files.discard(written)
        disk = files.disk_error(error)
        if disk is None:
            raise
        raise OSError(disk.errno, _disk_message(folder, step, disk)) from error
    if jax.process_index() == 0:
        for old in [k for k in steps(folder) if k <= step][:-keep]:
            files.remove(folder, old)
    return folder / str(step)


def steps(folder: Path) -> list[int]:
    """Returns the steps of the whole checkpoints in a folder, ascending.

    Args:
        folder: the folder of all checkpoints of a run; one that doesn't exist has none.
    """
    return list(files.committed(Path(folder)))


def restore_latest(
    folder: Path, like: PyTree, *, step: int | None = None, warn: Warn = print
) -> Restored | None:
    """Reads the newest checkpoint that is undamaged, bit for bit as it was saved.

    Args:
        folder: the folder of all checkpoints of a run.
        like: the state to fill: arrays or `jax.ShapeDtypeStruct`s, with the sharding that each leaf
            is to have (without one: the first device). A numpy array gives a numpy array.
        step: read this one only.
        warn: is told, in a sentence, of each damaged checkpoint that is skipped.

    Returns:
        The step, the state and the metadata; None if there is no checkpoint.

    Raises:
        CheckpointMismatch: the leaves of the newest checkpoint are not those of `like`.
        CheckpointCorrupted: all are damaged.
        FileNotFoundError: there is no checkpoint of this `step`.
    """
    return restore_part(folder, like, "", step=step, warn=warn)


def restore_part(
    folder: Path, like: PyTree, prefix: str, *, step: int | None = None, warn: Warn = print
) -> Restored | None:
    """Like `restore_latest`, but reads and verifies only the leaves below a prefix, such as "ema".

    Args:
        folder: the folder of all checkpoints of a run.
        like: the part to fill, as in `restore_latest`.
        prefix: the path of that part in the saved state, such as "ema" or "params/decoder".
        step: read this one only.
        warn: is told, in a sentence, of each damaged checkpoint that is skipped.

    Returns:
        The step, the part and the metadata; None if there is no checkpoint.

    Raises:
        CheckpointMismatch: the leaves below the prefix are not those of `like`.
        CheckpointCorrupted: all are damaged.
        FileNotFoundError: there is no checkpoint of this `step`.
    """
    found = files.committed(Path(folder).absolute())
    if step is not None and step not in found:
        there = ", ".join(map(str, found)) or "none"
        raise FileNotFoundError(f"no checkpoint of step {step} in {folder}; available: {there}")
    wanted = _flatten(like, prefix)
    damaged = []
    for number in sorted(found if step is None else [step], reverse=True):
        outcome = _attempt(found[number], wanted, prefix)
        if isinstance(outcome, str):
            damaged.append(f"checkpoint {number} in {folder} is damaged ({outcome})")
            continue
        for sentence in damaged:
            warn(f"{sentence}; going back to {number}")
        leaves, metadata = outcome
        return Restored(number, jax.tree.unflatten(jax.tree.structure(like), leaves), metadata)
    if damaged:
        raise CheckpointCorrupted("no checkpoint can be restored: " + "; ".join(damaged))
    return None


def _attempt(where: Path, wanted: Leaves, prefix: str) -> tuple[list[Any], dict[str, Any]] | str:
    """The leaves and the metadata, or in a few words why the checkpoint is damaged."""
    document: dict[str, Any] = {}
    reason = ""
    try:
        document = files.unseal((where / _DOCUMENT).read_text())
        # Orbax fails noisily and in pieces, so it isn't given what is known to be damaged.
        thoroughly = not prefix and jax.process_index() == 0
        if bad := files.damaged(where, document["files"], thoroughly=thoroughly):
            reason = f"not as they were saved: {_some(bad)}"
    except (OSError, ValueError) as error:
        reason = f"{_DOCUMENT}: {_first_line(error)}"
    if not _agree(not reason):
        return reason or _ELSEWHERE
    saved = {path: entry for path, entry in document["leaves"].items() if _is_below(path, prefix)}
    _compare(saved, wanted, where)
    values: Leaves = {}
    try:
        values = files.read_arrays(where / _STATE, wanted)
    except files.Unreadable as error:
        reason = _first_line(error)
    if not _agree(not reason):
        return reason or _ELSEWHERE
    wrong = [path for path, entry in saved.items() if _describe(values[path]) != entry]
    if not _agree(not wrong):
        return f"other bytes than were saved in {_some(wrong)}" if wrong else _ELSEWHERE
    return [values[path] for path in wanted], document["metadata"]


def _compare(saved: dict[str, dict[str, Any]], wanted: Leaves, where: Path) -> None:
    asked = {path: _kind(x) for path, x in wanted.items()}
    kinds = {path: (tuple(entry["shape"]), entry["dtype"]) for path, entry in saved.items()}
    problems = [f"{path} is missing" for path in asked if path not in kinds]
    problems += [f"{path} is unexpected" for path in kinds if path not in asked]
    problems += [
        f"{path} is {_spell(kinds[path])} where {_spell(kind)} is wanted"
        for path, kind in asked.items()
        if path in kinds and kinds[path] != kind
    ]
    if problems:
        raise CheckpointMismatch(
            f"{where} is a checkpoint of another model or optimizer: {_some(problems)}"
        )
    for x in wanted.values():
        if not isinstance(x, np.ndarray) and x.sharding is not None:
            x.sharding.shard_shape(x.shape)  # its own error, rather than one that looks like damage


def _flatten(tree: PyTree, prefix: str) -> Leaves:
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


def _describe(x: Any) -> dict[str, Any]:
    whole = x
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        whole = multihost_utils.process_allgather(x, tiled=True)
    data = np.ascontiguousarray(np.asarray(whole)).reshape(-1).view(np.uint8)
    return {"shape": [*x.shape], "dtype": np.dtype(x.dtype).name, "hash": files.digest(data)}


def _disk_message(folder: Path, step: int, disk: OSError) -> str:
    before = steps(folder)
    intact = f"the one of step {before[-1]} is intact" if before else "there was none before it"
    what = f"the checkpoint of step {step} can't be written to {folder}"
    return f"{what}: {disk.strerror or disk}; {intact}"


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _agree(fine: bool) -> bool:
    """Whether it is fine in every process, so that all fall back together."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.asarray(fine)).all())


def _is_below(path: str, prefix: str) -> bool:
    return not prefix or f"{path}/".startswith(f"{prefix}/")


def _kind(x: Any) -> tuple[tuple[int, ...], str]:
    return tuple(x.shape), np.dtype(x.dtype).name


def _spell(kind: tuple[tuple[int, ...], str]) -> str:
    return f"{kind[1]}[{','.join(map(str, kind[0]))}]"


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _first_line(error: BaseException) -> str:
    return f"{error or type(error).__name__}".splitlines()[0][:160]
