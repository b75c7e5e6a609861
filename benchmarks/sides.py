"""Two sides of a benchmark, each in a process of its own, and the machine that they share."""

import os
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path


class Worker:
    """A side in a process of its own, that answers one question at a time."""

    def __init__(self, name: str, target: Callable, args: Namespace):
        self.name = name
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=target, args=(other, args), daemon=True)
        self._process.start()
        other.close()

    def ask(self, question: str, *details):
        self._connection.send((question, *details))
        try:
            return self._connection.recv()
        except EOFError:
            sys.exit(f"{self.name} stopped; its error is above.")

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=30)


def serve(connection: Connection, answers: dict[str, Callable]) -> None:
    """Answers questions until the other end closes."""
    while True:
        try:
            question, *details = connection.recv()
        except EOFError:
            return
        connection.send(answers[question](*details))


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def busy_cores(seconds: float = 3.0) -> float:
    """How many cores other programs kept busy for some seconds."""

    def ticks() -> int:
        return sum(int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:4])

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def stay_on(threads: int) -> None:
    """Keeps this process on the first so many cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
