"""SIGINT and SIGTERM as something the loop looks at between steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


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
