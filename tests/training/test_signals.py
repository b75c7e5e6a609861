"""What Ctrl-C and SIGTERM do where nothing is to be saved, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_jax.training.signals import ended_at_once

ROOT = Path(__file__).resolve().parents[2]
BUSY = """
import jax
from diffusion_jax.training.signals import ended_at_once
with ended_at_once():
    print("busy", flush=True)
    endless = lambda x: jax.lax.while_loop(lambda x: x >= 0, lambda x: (x + 1) % 7, x)
    jax.jit(endless)(0).block_until_ready()
"""


COLLECTING = """
import gc, os, signal, time
from diffusion_jax.training.cli import run_command
def command():
    gc.callbacks.append(lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)))
    gc.collect()
    print("went on")
signal.signal(signal.SIGINT, signal.SIG_DFL)
run_command(command)
"""


def started(*command, cwd=ROOT):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], cwd=cwd, env=env, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_does_not_wait_for_a_computation(number):
    process = started("-c", BUSY)
    assert process.stdout is not None and process.stdout.readline() == b"busy\n"
    time.sleep(1)  # by now it's inside XLA, where Python runs no handler
    process.send_signal(number)
    assert process.communicate(timeout=10)[1] == b"interrupted.\n"
    assert process.returncode == 128 + number


def test_afterwards_signals_are_what_they_were():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with ended_at_once():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_ctrl_c_before_the_first_step_ends_in_order(tmp_path, wait):
    """Python's own ending has crashed while threads compiled."""
    run = tmp_path / "run"
    flags = ["--steps", "1000000", "--sample-every", "0", "--run-dir", str(run)]
    process = started("train.py", "tests/training/toy.py", *flags)
    while not (run / "recipe.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    said = b"".join(process.communicate(timeout=60))
    assert process.returncode == 130, said
    assert b"Traceback" not in said and (b"interrupted." in said or b"stopped by" in said)


def test_ctrl_c_ends_a_command_that_collects_garbage():
    """Where an exception is only said to be ignored."""
    process = started("-c", COLLECTING)
    assert process.communicate(timeout=60) == (b"", b"interrupted.\n")
    assert process.returncode == 130
