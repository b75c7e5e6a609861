"""Checkpoints that are atomic, verified, and fall back.

A checkpoint of step 120 is the folder `120/`:

    state/              the leaves, written by Orbax as a flat dict from path to array
    checkpoint.json     step, metadata, size and checksum of the files, and for every leaf its
                        shape, dtype and fingerprint

The JSON carries a hash of itself. Restoring compares the leaves with those asked for before it
reads anything, because Orbax loads partial trees silently, and the fingerprints afterwards, because
Orbax keeps none: a missing chunk reads as zeros. Leaves without elements, which Orbax refuses, live
in the JSON only.

Several processes write together, each what it holds; process 0 adds up their fingerprints.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffusion_jax.training import disk, files
from diffusion_jax.training.fingerprints import fingerprint
from diffusion_jax.training.manifest import (
    CheckpointMismatch,
    Leaves,
    PyTree,
    compare,
    describe,
    flatten,
    is_below,
    some,
    whole_prints,
)

__all__ = [
    "CheckpointCorrupted",
    "CheckpointMismatch",
    "Restored",
    "begin",
    "best",
    "restore_latest",
    "restore_part",
    "save",
    "steps",
]

Warn = Callable[[str], None]
_DOCUMENT = "checkpoint.json"
_STATE = "state"
_ELSEWHERE = "another process could not read it"


class Restored(NamedTuple):
    """A checkpoint that was read and verified."""

    step: int
    state: PyTree
    metadata: dict[str, Any]


class CheckpointCorrupted(RuntimeError):
    """Every checkpoint that was asked for is damaged."""


def save(
    folder: Path, step: int, state: PyTree, metadata: dict[str, Any], *, keep: int = 2
) -> Path:
    """Writes a checkpoint, and returns when it is whole on disk.

    It appears under its name at once or not at all, and older ones are removed only afterwards:
    all but the newest `keep` and the `best`. A checkpoint of the same step is replaced. Later
    steps, which a run that was rewound leaves behind, are not touched. An error of the disk that
    may pass is met by trying again. With several processes all of them call it, on a file system
    they share; the metadata of process 0 is kept.

    Args:
        folder: the folder of all checkpoints of a run; made if missing.
        step: the step, at least 0.
        state: a pytree of arrays (no typed random keys).
        metadata: what JSON can hold: the position in the data, the seed, the "loss".
        keep: how many checkpoints to keep, this one and those before it; at least 1.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: the disk is full or can't be written; the checkpoints from before are intact.
        TypeError: a leaf is not an array, or metadata is not JSON.
        ValueError: two leaves have the same path, or step or keep is out of range.
    """
    begin(folder, step, state, metadata, keep=keep)()
    return Path(folder).absolute() / str(step)


def begin(
    folder: Path, step: int, state: PyTree, metadata: dict[str, Any], *, keep: int = 2
) -> Callable[[], None]:
    """Like `save`, but what is returned does the rest, and may be called in a thread.

    The devices don't compute for it: of several processes, what they have to agree on through
    their devices they agree on here.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be at least 0 and keep at least 1, not {step} and {keep}")
    folder = Path(folder).absolute()
    leaves = flatten(state, "")
    files.seal({"metadata": metadata})  # what JSON can't hold is refused before anything is written
    with _explained(folder, step):
        # Of several processes one can't try again by itself: the others wait inside of Orbax.
        begun = None if jax.process_count() == 1 else _begin(folder, step, leaves)

    def finish() -> None:
        with _explained(folder, step):
            if begun is None:
                disk.patiently(
                    lambda: _finish(folder, step, leaves, metadata, _begin(folder, step, leaves))
                )
            else:
                _finish(folder, step, leaves, metadata, begun)
        if jax.process_index() == 0:
            kept = {*[k for k in steps(folder) if k <= step][-keep:], best(folder)}
            for old in [k for k in steps(folder) if k < step and k not in kept]:
                files.remove(folder, old)

    return finish


def _begin(folder: Path, step: int, leaves: Leaves) -> Callable[[], None]:
    """Begins to write the arrays; what is returned waits for them."""
    written = files.temporary(folder, step)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        files.clear_leftovers(folder)
        written.mkdir()
    files.wait_for_all(f"cleared {step}")
    return files.write_arrays(written / _STATE, {path: x for path, x in leaves.items() if x.size})


def _finish(
    folder: Path,
    step: int,
    leaves: Leaves,
    metadata: dict[str, Any],
    wait_for_arrays: Callable[[], None],
) -> None:
    written = files.temporary(folder, step)
    wait_for_arrays()
    prints = files.add_up(written, {path: fingerprint(x) for path, x in leaves.items()})
    if jax.process_index() == 0:
        manifest = {path: describe(x, prints[path]) for path, x in leaves.items()}
        document = {"step": step, "metadata": metadata, "leaves": manifest}
        document["files"] = files.inventory(written)
        (written / _DOCUMENT).write_text(files.seal(document))
        files.commit(folder, step)
    files.wait_for_all(f"written {step}")


@contextlib.contextmanager
def _explained(folder: Path, step: int) -> Iterator[None]:
    """Leaves nothing half-written behind an error, and says of a disk's what is lost: nothing."""
    try:
        yield
    except BaseException as error:
        if jax.process_index() == 0:
            files.discard(files.temporary(folder, step))
        cause = disk.error_behind(error)
        if cause is None:
            raise
        raise OSError(cause.errno, _disk_message(folder, step, cause)) from error


def best(folder: Path) -> int | None:
    """The step of the whole checkpoint with the lowest "loss" in its metadata, None if none has.

    Args:
        folder: the folder of all checkpoints of a run.
    """
    losses = {}
    for step, where in files.committed(Path(folder)).items():
        try:
            losses[step] = files.unseal((where / _DOCUMENT).read_text())["metadata"]["loss"]
        except (OSError, ValueError, KeyError):
            continue  # damaged, or of a run that has no loss: not the best
    return min(losses, key=lambda step: losses[step], default=None)


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
    wanted = flatten(like, prefix)
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
        document = files.unseal(disk.patiently((where / _DOCUMENT).read_text))
        # Orbax fails noisily and in pieces, so it isn't given what is known to be damaged.
        thoroughly = not prefix and jax.process_index() == 0
        inventory = document["files"]
        bad = disk.patiently(lambda: files.damaged(where, inventory, thoroughly=thoroughly))
        if bad:
            reason = f"not as they were saved: {some(bad)}"
    except (OSError, ValueError) as error:
        reason = f"{_DOCUMENT}: {_first_line(error)}"
    if not _agree(not reason):
        return reason or _ELSEWHERE
    saved = {path: entry for path, entry in document["leaves"].items() if is_below(path, prefix)}
    compare(saved, wanted, where)
    if any("fingerprint" not in entry for entry in saved.values()):
        return "of an earlier version, which kept no fingerprints"
    values: Leaves = {}
    try:
        values = disk.patiently(lambda: files.read_arrays(where / _STATE, wanted))
    except files.Unreadable as error:
        reason = _first_line(error)
    if not _agree(not reason):
        return reason or _ELSEWHERE
    prints = whole_prints(values)
    wrong = [p for p, entry in saved.items() if describe(values[p], prints[p]) != entry]
    if not _agree(not wrong):
        return f"other bytes than were saved in {some(wrong)}" if wrong else _ELSEWHERE
    return [values[path] for path in wanted], document["metadata"]


def _disk_message(folder: Path, step: int, cause: OSError) -> str:
    before = steps(folder)
    intact = f"the one of step {before[-1]} is intact" if before else "there was none before it"
    what = f"the checkpoint of step {step} can't be written to {folder}"
    return f"{what}: {cause.strerror or cause}; {intact}"


def _agree(fine: bool) -> bool:
    """Whether it is fine in every process, so that all fall back together."""
    if jax.process_count() == 1:
        return fine
    return bool(multihost_utils.process_allgather(np.asarray(fine)).all())


def _first_line(error: BaseException) -> str:
    return f"{error or type(error).__name__}".splitlines()[0][:160]
