"""Checkpoints written beside the training: the devices go on while a thread writes."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.training import checkpoints


class Saver:
    """Writes one checkpoint at a time; training waits for a copy of the state, not for the disk.

    Use it in a `with`, which waits for the last one. An error of a write comes out of the next
    call of any method.

    Args:
        folder: the folder of all checkpoints of a run.
        keep: how many checkpoints to keep beside the best.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self._folder, self._keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._join()
        if error is None:
            self.check()

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Begins to write a checkpoint, after the one before is whole.

        Args: as of `checkpoints.save`. The state may be donated as soon as this returns.

        Raises: as `checkpoints.save`, for the checkpoint before.
        """
        self.wait()
        finish = checkpoints.begin(self._folder, step, copied(state), metadata, keep=self._keep)

        def write() -> None:
            try:
                finish()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=write, name=f"checkpoint {step}")
        self._thread.start()

    def wait(self) -> None:
        """Returns when what was begun is whole on disk; raises what went wrong."""
        self._join()
        self.check()

    def check(self) -> None:
        """Raises what went wrong, if that is known by now."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def copied(state: Any) -> Any:
    """The state in buffers of its own, in the hosts' memory where devices have another.

    Leaves keep their cuts. Nothing moves between processes.
    """
    kinds = {memory.kind for memory in jax.local_devices()[0].addressable_memories()}
    kind = "pinned_host" if "pinned_host" in kinds else None
    leaves, tree = jax.tree.flatten(state)
    shards = [x.addressable_shards if isinstance(x, jax.Array) else [] for x in leaves]
    flat = [shard for parts in shards for shard in parts]
    there = [jax.sharding.SingleDeviceSharding(s.device, memory_kind=kind) for s in flat]
    copies = iter(jax.device_put([s.data for s in flat], there, may_alias=False))

    def whole(x: Any, parts: Sequence[Any]) -> Any:
        if not isinstance(x, jax.Array):
            return np.array(x)
        away = x.sharding.with_memory_kind(kind) if kind else x.sharding
        own = [next(copies) for _ in parts]
        return jax.make_array_from_single_device_arrays(x.shape, away, own)

    return jax.tree.unflatten(tree, [whole(*one) for one in zip(leaves, shards, strict=True)])
