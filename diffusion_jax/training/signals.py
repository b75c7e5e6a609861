"""SIGINT and SIGTERM: noted between steps by the loop, or the end at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn


class Stopped(Exception):
    """A signal ended the run after a checkpoint.

    Attributes:
        step: where it stands.
        number: of the signal.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}")
        self.step, self.number = step, number


@contextlib.contextmanager
def noted_signals() -> Iterator[Callable[[], int]]:
    """Yields a function: which of SIGINT and SIGTERM arrived, 0 for none.

    The first one is only noted; a second Ctrl-C interrupts at once. Outside the main thread,
    where Python takes no handlers, nothing is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    noted = 0

    def note(number, frame):
        nonlocal noted
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted = number

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(status: int) -> NoReturn:
    """Says "interrupted." and ends the process, without Python's own ending: threads that still
    compile or read have been seen to crash it."""
    with contextlib.suppress(OSError, ValueError):  # closed by who read it
        sys.stdout.flush()
        sys.stderr.write("interrupted.\n")
        sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """SIGINT and SIGTERM end the process at once with 128 + their number.

    A thread of its own hears them: the main one may be inside XLA for minutes, where Python runs
    no handler. For what has nothing to save. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, rung = os.pipe()
    os.set_blocking(rung, False)

    def listen() -> None:
        while number := os.read(heard, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                leave(128 + number[0])
        os.close(heard)

    # A number is written to the pipe where Python has a handler, whatever that does.
    before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGINT, signal.SIGTERM)}
    previous = signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(rung)  # and the thread ends
