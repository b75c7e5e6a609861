"""A parent that starts training again when it crashes or hangs.

The child beats by writing the number of each step to a pipe. Its end is told by its status; silence
for too long is a hang. It resumes from the newest whole checkpoint, as it would by hand. On several
hosts each has its own supervisor: when one process dies, JAX ends the others, and all come back.
"""

import contextlib
import errno
import io
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_PIPE = "DIFFUSION_JAX_HEARTBEAT"
_AT_WORK = "-"  # in a step's place
_LONGEST = 60.0  # seconds between a crash and the next start


def supervised() -> bool:
    """Whether this process is such a child."""
    return _PIPE in os.environ


def heartbeat() -> Callable[[int | None], None]:
    """A function to be told of every step, and with None of other work that takes its time.

    Where the parent has died, this process is asked to end. Without a supervisor it does nothing.
    """
    if not supervised():
        return lambda step: None
    pipe = int(os.environ[_PIPE])

    def beat(step: int | None) -> None:
        try:
            os.write(pipe, f"{_AT_WORK if step is None else step}\n".encode())
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            os.kill(os.getpid(), signal.SIGTERM)

    return beat


@dataclass
class Life:
    """How a child lived.

    Attributes:
        status: its exit status; negative where a signal ended it.
        step: its last step, None if there was none.
        hung: whether it was ended for its silence.
    """

    status: int
    step: int | None = None
    hung: bool = False

    def __str__(self) -> str:
        where = "before its first step" if self.step is None else f"after step {self.step}"
        if self.hung:
            return f"was silent for too long {where}, and was ended"
        if self.status < 0:
            return f"was ended by {signal.Signals(-self.status).name} {where}"
        return f"ended with status {self.status} {where}"


def supervise(
    command: Sequence[str],
    restarts: int,
    silence: float,
    *,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> int:
    """Runs a command, again after each crash or hang, and returns its last exit status.

    It isn't started again where that can't help: it ended well, or by SIGINT or SIGTERM, which are
    passed on to it; its first life ended before a step, as for a wrong flag; or it failed twice in
    a row after the same step with status 1, as where a loss isn't finite.

    Args:
        command: program and arguments.
        restarts: how often it is started again at most.
        silence: seconds without a step that count as a hang.
        say: is told, in a sentence, of each restart.
    """
    before: Life | None = None
    for left in range(restarts, -1, -1):
        life, asked = _live(command, silence)
        if life.status in (0, 128 + signal.SIGINT, 128 + signal.SIGTERM) or asked:
            return life.status if life.status >= 0 else 128 - life.status
        hopeless = life.status == 1 and (
            life.step is None if before is None else (before.status, before.step) == (1, life.step)
        )
        if hopeless:
            if before is not None:
                say(f"training failed twice after step {life.step}; not starting it again.")
            return 1
        if not left:
            say(f"training {life}; it was started again {restarts} times, and isn't any more.")
            return life.status if life.status > 0 else 128 - life.status
        say(f"training {life}; starting it again ({restarts - left + 1} of {restarts}).")
        stuck = before is not None and before.step == life.step
        time.sleep(min(_LONGEST, 2.0 ** (restarts - left)) if stuck else 1.0)
        before = life
    raise AssertionError("the last life returns")


def _live(command: Sequence[str], silence: float) -> tuple[Life, bool]:
    """One life of the command, and whether this process was asked to end meanwhile."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as beats, _passed_on() as child_is:
        environment = {**os.environ, _PIPE: str(writing)}
        child = subprocess.Popen(
            command, env=environment, pass_fds=[writing], start_new_session=True
        )
        asked = child_is(child)
        os.close(writing)
        step, hung, heard = None, False, time.monotonic()
        while child.poll() is None:
            if lines := _lines(beats, 0.2):
                step, heard = _step_of(lines, step), time.monotonic()
            elif time.monotonic() - heard > silence:
                hung = True
                child.kill()
                child.wait()
        while rest := _lines(beats, 0.0):
            step = _step_of(rest, step)
        return Life(child.wait(), step, hung), asked()


def _step_of(lines: Sequence[bytes], step: int | None) -> int | None:
    """The last step that a child has told of, after the one that was known."""
    told = [line for line in lines if line != _AT_WORK.encode()]
    return int(told[-1]) if told else step


def _lines(pipe: io.FileIO, seconds: float) -> list[bytes]:
    """What a pipe has to say within so many seconds; where its end was closed, they are waited."""
    if not select.select([pipe], [], [], seconds)[0]:
        return []
    lines = pipe.read(1 << 16).splitlines()
    if not lines:
        time.sleep(seconds)
    return lines


@contextlib.contextmanager
def _passed_on() -> Iterator[Callable[[subprocess.Popen], Callable[[], bool]]]:
    """SIGINT and SIGTERM go to the child that is named, which is in a session of its own."""
    arrived: list[int] = []
    child: subprocess.Popen | None = None

    def pass_on(number, frame):
        arrived.append(number)
        if child is not None:
            child.send_signal(number)

    def name(named: subprocess.Popen) -> Callable[[], bool]:
        nonlocal child
        child = named
        for number in arrived:
            child.send_signal(number)
        return lambda: bool(arrived)

    both = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in both}
    try:
        yield name
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
