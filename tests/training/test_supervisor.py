"""The supervisor, on children that do as they are told."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from diffusion_jax.training.supervisor import heartbeat, supervise, supervised

ROOT = Path(__file__).resolve().parents[2]
PREFACE = """
import os, signal, sys, time, pathlib
life = pathlib.Path(sys.argv[1])
number = int(life.read_text()) if life.exists() else 0
life.write_text(str(number + 1))
pipe = int(os.environ["DIFFUSION_JAX_HEARTBEAT"])
def beat(step): os.write(pipe, b"%d\\n" % step)
"""


def command(tmp_path: Path, body: str) -> list[str]:
    text = PREFACE + textwrap.dedent(body)
    return [sys.executable, "-S", "-c", text, str(tmp_path / "life")]


def lived(tmp_path: Path) -> int:
    return int((tmp_path / "life").read_text())


def run(tmp_path: Path, body: str, restarts: int = 3, silence: float = 30.0):
    said: list[str] = []
    status = supervise(command(tmp_path, body), restarts, silence, say=said.append)
    return status, said, lived(tmp_path)


def test_a_good_end_is_the_end(tmp_path):
    assert run(tmp_path, "beat(1)") == (0, [], 1)


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)"])
def test_a_crash_is_started_again(tmp_path, death):
    status, said, lives = run(tmp_path, f"beat(3 + number)\nif number < 2: {death}")
    assert (status, lives) == (0, 3)
    assert "after step 3; starting it again (1 of 3)" in said[0] and "after step 4" in said[1]


def test_restarts_end(tmp_path):
    status, said, lives = run(tmp_path, "beat(number)\nos.kill(os.getpid(), signal.SIGABRT)", 2)
    assert (status, lives) == (128 + signal.SIGABRT, 3)
    assert said[-1].endswith(
        "SIGABRT after step 2; it was started again 2 times, and isn't any more."
    )


def test_a_wrong_flag_is_not_tried_twice(tmp_path):
    assert run(tmp_path, "sys.exit(1)") == (1, [], 1)


def test_what_fails_at_the_same_step_again_is_left(tmp_path):
    status, said, lives = run(tmp_path, "beat(7)\nsys.exit(1)")
    assert (status, lives) == (1, 2)
    assert said[-1] == "training failed twice after step 7; not starting it again."


def test_a_hang_is_ended(tmp_path):
    began = time.monotonic()
    body = "beat(5)\nif number == 0: time.sleep(60)"
    status, said, lives = run(tmp_path, body, silence=1.0)
    assert (status, lives) == (0, 2) and time.monotonic() - began < 30
    assert said == [
        "training was silent for too long after step 5, and was ended; starting it again (1 of 3)."
    ]


def test_steps_keep_it_from_being_a_hang(tmp_path):
    body = "for step in range(8):\n    beat(step)\n    time.sleep(0.4)"
    assert run(tmp_path, body, silence=2.0) == (0, [], 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_it(tmp_path, number):
    body = f"""
    signal.signal({int(number)}, lambda *_: sys.exit({128 + number}))
    beat(1)
    print("ready", flush=True)
    time.sleep(60)
    """
    script = (
        "import sys\nfrom diffusion_jax.training.supervisor import supervise\n"
        "sys.exit(supervise(sys.argv[1:], 3, 30.0))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command(tmp_path, body)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout.readline() == "ready\n"
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert (parent.returncode, errors, lived(tmp_path)) == (128 + number, "", 1)


def test_other_work_is_no_silence_and_no_step(tmp_path):
    """As where a data set is encoded before the first step."""
    body = """
    for _ in range(12):
        os.write(pipe, b"-\\n")
        time.sleep(0.25)
    beat(7)
    os.write(pipe, b"-\\n")
    sys.exit(3)
    """
    status, said, _ = run(tmp_path, body, restarts=0, silence=1.5)
    assert status == 3 and "ended with status 3 after step 7" in said[0]


def test_what_a_heartbeat_writes(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv("DIFFUSION_JAX_HEARTBEAT", str(writing))
    beat = heartbeat()
    beat(3)
    beat(None)
    assert os.read(reading, 100) == b"3\n-\n"
    for end in (reading, writing):
        os.close(end)


def test_without_a_supervisor_nothing_beats():
    assert not supervised()
    heartbeat()(1)
