"""What lies on disk: folders that appear whole or not at all, and in them arrays and sealed JSON.

The only file that knows Orbax. `commit` renames a finished temporary folder to its step, so a
reader never sees half of one. Names in a folder:

    120         a whole step
    .120.tmp    being written, or being removed: never read, cleared by the next write
    .120.old    a whole step, just being replaced: read only while 120 itself is missing
"""

import contextlib
import gc
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

_WAITED = itertools.count()
_HIDDEN = re.compile(r"\.(\d+)\.(tmp|old)")


class Unreadable(RuntimeError):
    """Orbax could not read what it had written."""


def temporary(folder: Path, step: int) -> Path:
    """Where the folder of a step is written before `commit`."""
    return folder / f".{step}.tmp"


def committed(folder: Path) -> dict[int, Path]:
    """Returns the whole steps in `folder`, ascending, with the path of each.

    Args:
        folder: any folder; one that does not exist has no steps.
    """
    found: dict[int, Path] = {}
    if not folder.is_dir():
        return found
    for name in os.listdir(folder):
        hidden = _HIDDEN.fullmatch(name)
        if re.fullmatch(r"\d+", name):
            found[int(name)] = folder / name
        elif hidden and hidden[2] == "old":
            found.setdefault(int(hidden[1]), folder / name)
    return dict(sorted(found.items()))


def clear_leftovers(folder: Path) -> None:
    """Removes what killed writers left behind, and finishes a replacement that one had begun."""
    for name in os.listdir(folder):
        hidden = _HIDDEN.fullmatch(name)
        if not hidden:
            continue
        if hidden[2] == "old" and not (folder / hidden[1]).exists():
            os.rename(folder / name, folder / hidden[1])
        else:
            shutil.rmtree(folder / name)


def commit(folder: Path, step: int) -> Path:
    """Makes the temporary folder of `step` durable and renames it into place.

    Args:
        folder: the parent folder.
        step: the number whose `temporary` folder is complete.

    Returns:
        The folder of the step, which survives a loss of power. It replaced an older one, if any.
    """
    written, final, old = temporary(folder, step), folder / str(step), folder / f".{step}.old"
    _sync_tree(written)
    if final.exists():
        os.rename(final, old)
    os.rename(written, final)
    _sync(folder)
    if old.exists():
        discard(old)
    return final


def remove(folder: Path, step: int) -> None:
    """Removes a whole step; killed half-way, it is no longer counted as one."""
    os.rename(folder / str(step), temporary(folder, step))
    discard(temporary(folder, step))


def discard(path: Path) -> None:
    """Deletes a folder as far as it can be deleted; the next `clear_leftovers` takes the rest."""
    shutil.rmtree(path, ignore_errors=True)


def inventory(root: Path) -> dict[str, list[int]]:
    """Returns size and CRC of every file below a folder, by its path from there."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): [path.stat().st_size, _crc(path)] for path in found}


def damaged(root: Path, expected: dict[str, list[int]], *, thoroughly: bool) -> list[str]:
    """Returns the files that are not as in an `inventory`.

    Args:
        root: the folder.
        expected: its inventory.
        thoroughly: read them all; else only compare sizes.
    """

    def fine(path: Path, size: int, crc: int) -> bool:
        if not path.is_file() or path.stat().st_size != size:
            return False
        return not thoroughly or _crc(path) == crc

    return [name for name, (size, crc) in expected.items() if not fine(root / name, size, crc)]


def write_arrays(where: Path, arrays: dict[str, Any]) -> Callable[[], None]:
    """Begins to write jax and numpy arrays, each with some elements, to a folder.

    Orbax compares paths through the devices here, so of several processes all call it in the
    thread that trains.

    Args:
        where: the folder to make; its parent exists.
        arrays: from path to array; nothing is written if there is none. They aren't copied.

    Returns:
        A function that waits until they are on disk; any thread may call it.
    """
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.asynchronous.create_directories_asynchronously = False
    if not arrays:
        return lambda: None
    with _quiet_orbax(), context:
        response = ocp.save_async(where, arrays)

    def wait() -> None:
        with _quiet_orbax():
            response.result()

    return wait


def read_arrays(where: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Reads the arrays named in `wanted`; what was written may differ, and this does not notice.

    Args:
        where: the folder that `write_arrays` made.
        wanted: from path to a numpy array, for one like it, or to a jax array or
            `jax.ShapeDtypeStruct`, for a jax array with its sharding. Those without elements are
            made, not read.

    Raises:
        Unreadable: Orbax failed.
    """
    from orbax.checkpoint import v1 as ocp

    abstract = {path: _abstract(x) for path, x in wanted.items()}
    empty = {path: _zeros(x) for path, x in abstract.items() if x.size == 0}
    stored = {path: x for path, x in abstract.items() if x.size}
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    if not stored:
        return empty
    with _quiet_orbax():
        try:
            with context:
                return empty | ocp.load(where, stored)
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:  # damage shows as OSError, ValueError, KeyError, Orbax's own...
            reason = f"{type(error).__name__}: {error}"
        gc.collect()  # what a failed load leaves pending, while nobody hears it complain
    raise Unreadable(reason)


def wait_for_all(what: str) -> None:
    """Waits until every process of the job is here; safe in a thread while the devices work.

    Raises:
        Exception: JAX's coordination service lost a process, or waited for ten minutes.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost

    key = f"diffusion_jax checkpoint {next(_WAITED)}: {what}"  # a name serves once
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=600_000)


def add_up(where: Path, numbers: dict[str, int]) -> dict[str, int]:
    """Returns the sums of every process's numbers modulo 2^64, in process 0.

    They go through files: a thread must not use the devices.

    Args:
        where: a folder that all processes share.
        numbers: this process's; of the same names in all.
    """
    if jax.process_count() == 1:
        return numbers
    (where / f"sums-{jax.process_index()}.json").write_text(json.dumps(numbers))
    wait_for_all("sums")
    if jax.process_index():
        return numbers
    parts = sorted(where.glob("sums-*.json"))
    found = [json.loads(path.read_text()) for path in parts]
    for path in parts:
        path.unlink()
    return {name: sum(part[name] for part in found) % 2**64 for name in numbers}


def digest(data: Any) -> str:
    """Returns a hash of some bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def seal(body: dict[str, Any]) -> str:
    """Returns a JSON document with a hash of its content, for `unseal`.

    Args:
        body: anything JSON can hold; tuples come back as lists, and keys as strings.

    Raises:
        TypeError: JSON can't hold it.
    """
    try:
        body = json.loads(json.dumps(body))
    except (TypeError, ValueError) as error:
        raise TypeError(f"the metadata of a checkpoint must be JSON: {error}") from error
    return json.dumps({"hash": _digest_json(body), "body": body}, indent=1)


def unseal(text: str) -> dict[str, Any]:
    """Returns the content of a JSON document that `seal` made.

    Raises:
        ValueError: the text is not what `seal` made.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.keys() != {"hash", "body"}:
        raise ValueError("not a sealed document")
    if document["hash"] != _digest_json(document["body"]):
        raise ValueError("was altered")
    return document["body"]


def _digest_json(body: dict[str, Any]) -> str:
    return digest(json.dumps(body, sort_keys=True).encode())


def _abstract(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x
    sharding = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _zeros(x: Any) -> Any:
    zeros = np.zeros(x.shape, x.dtype)
    if isinstance(x, np.ndarray):
        return zeros
    return jax.make_array_from_callback(x.shape, x.sharding, lambda index: zeros[index])


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Orbax logs every failure many times before it raises it; whoever catches it says it once."""

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname and "orbax" not in record.getMessage()

    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(from_elsewhere)
    shown, sys.unraisablehook = sys.unraisablehook, _without_closed_loops(sys.unraisablehook)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        yield
    # Not in a finally: after a failure its threads go on complaining for a while.
    sys.unraisablehook = shown
    for logger in loggers:
        logger.removeFilter(from_elsewhere)


def _without_closed_loops(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """TensorStore's threads report to an event loop that a failed write has closed."""

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            show(unraisable)

    return hook


def _sync_tree(root: Path) -> None:
    for parent, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
