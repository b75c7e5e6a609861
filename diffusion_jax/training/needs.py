"""What a run was trained on beside data: other runs, such as a prior's CLIP, and which they were.

A run that needs others keeps `needs.json`: of each its newest checkpoint's step and a digest of
the fingerprints of its leaves. Where one of them has been trained on or anew since, what was
learned from it isn't true of it any more.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.data.files import write_atomically
from diffusion_jax.training import checkpoints, files

_FILE = "needs.json"


def identity(run_dir: Path) -> dict[str, Any]:
    """{"run", "step", "digest"} of a run's newest checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = run_dir / "checkpoints"
    found = checkpoints.steps(folder)
    if not found:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; train first.")
    path = folder / str(found[-1]) / "checkpoint.json"
    leaves = files.unseal(path.read_text())["leaves"]
    text = json.dumps(leaves, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"run": str(run_dir.resolve()), "step": found[-1], "digest": digest}


def pin(run_dir: Path, needed: Sequence[Path], *, write: bool = True) -> None:
    """Notes what a new run is trained on, or refuses to go on with a run of something else.

    Args:
        run_dir: of the run.
        needed: the runs that it is trained on.
        write: whether this process writes.

    Raises:
        ValueError: one of them has changed since.
        FileNotFoundError: one has no checkpoint yet.
    """
    now = [identity(path) for path in needed]
    if not now:
        return
    path = run_dir / _FILE
    if path.is_file():
        return check_pinned(run_dir, needed)
    if write:
        write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())


def pinned(run_dir: Path) -> list[dict[str, Any]]:
    """What the run was trained on, as `identity`; nothing where it needed no run.

    Raises:
        ValueError: the file is damaged.
    """
    path = run_dir / _FILE
    if not path.is_file():
        return []
    try:
        return [
            {"run": str(Path(entry["run"])), "step": entry["step"], "digest": entry["digest"]}
            for entry in json.loads(path.read_text())
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from None


def check_pinned(run_dir: Path, needed: Sequence[Path] = ()) -> None:
    """Refuses a run whose own needs have changed.

    Args:
        run_dir: of the run.
        needed: where its recipe finds them from here: copies of what it was trained on, or the
            folders themselves. Where there are none, these are looked for where they were.

    Raises:
        ValueError: one has changed since, or another one is in its place.
        FileNotFoundError: one is gone.
    """
    for before, path in itertools.zip_longest(pinned(run_dir), needed):
        if before is None:
            return
        if path is not None and path.is_dir() and str(path.resolve()) != before["run"]:
            if identity(path)["digest"] == before["digest"]:
                continue
            raise ValueError(
                f"{run_dir} was trained on {before['run']} at step {before['step']}, and {path}, "
                "which its recipe reads here, is another one."
            )
        if not Path(before["run"]).is_dir():
            raise FileNotFoundError(
                f"{run_dir} was trained on {before['run']}, and there is no such folder any more."
            )
        now = identity(Path(before["run"]))
        if now["digest"] != before["digest"]:
            raise ValueError(
                f"{run_dir} was trained on {before['run']} at step {before['step']}, which has "
                f"changed since (its newest checkpoint is of step {now['step']}); train anew."
            )
