"""Many processes as one: joining the job, who speaks, and stopping together.

On a cluster every host runs the same command. What the cluster says of itself (Slurm, Cloud TPU
and GKE by their environment) is enough to join; elsewhere three flags are.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffusion_jax.training.signals import noted_signals


@dataclass(frozen=True)
class JobOptions:
    """Which job this process belongs to, where the cluster doesn't say."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same for every process (default: what the cluster says)"""
    processes: int | None = None
    """how many processes there are"""
    process: int | None = None
    """the number of this one, from 0"""

    def join(self) -> None:
        """Joins the job; nothing happens where there is only this process.

        Call it before anything asks for devices.

        Raises:
            ValueError: one or two of the three flags are given, or a number is out of range.
            RuntimeError: the others weren't reached.
        """
        given = [self.coordinator, self.processes, self.process]
        if all(value is None for value in given):
            if cluster(os.environ):
                jax.distributed.initialize()
            return
        if self.coordinator is None or self.processes is None or self.process is None:
            raise ValueError("--coordinator, --processes and --process go together.")
        if self.processes < 1:
            raise ValueError(f"--processes is {self.processes}; there is at least 1.")
        host, _, port = self.coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError(f"--coordinator is {self.coordinator!r}; it must be HOST:PORT.")
        if not 0 <= self.process < self.processes:
            raise ValueError(f"--process is {self.process}; it must be in 0..{self.processes - 1}.")
        if self.processes > 1:
            print(f"waiting for {self.processes} processes at {self.coordinator}", flush=True)
        jax.distributed.initialize(self.coordinator, self.processes, self.process)


def cluster(environment: Mapping[str, str]) -> str | None:
    """The cluster that an environment speaks of: "slurm" (of several tasks), "tpu" or None."""
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return "slurm"
    if "TPU_WORKER_HOSTNAMES" in environment or _has_tpu():
        return "tpu"
    return None


def _has_tpu() -> bool:
    """Whether this host has a TPU that JAX can drive."""
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def speaks() -> bool:
    """Whether this process writes logs and pictures: process 0 does."""
    return jax.process_index() == 0


def to_host(x: jax.Array) -> np.ndarray:
    """The whole array, in every process."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def said_by_all(text: str) -> list[str]:
    """A text of each process, in all of them, in the order of their numbers."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    longest = int(multihost_utils.process_allgather(np.int32(len(own))).max())
    rows = multihost_utils.process_allgather(np.pad(own, (0, longest - len(own))))
    return [bytes(row).rstrip(b"\0").decode() for row in np.asarray(rows)]


@contextlib.contextmanager
def stops() -> Iterator[Callable[[int], int]]:
    """Yields a function of the step just done: which signal ends the run after it, 0 for none.

    Of several processes all stop after the same step when one of them got SIGTERM, which is how
    platforms give notice; JAX's coordination service agrees on the step.
    """
    if jax.process_count() == 1:
        with noted_signals() as arrived:
            yield lambda step: arrived()
        return
    yield lambda step: _SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0


_SIGTERM = 15
