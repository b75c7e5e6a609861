"""Resuming is exact: python benchmarks/resume.py

Trains a recipe once without a stop, and once killed with SIGKILL at random moments, every other
time in the midst of writing a checkpoint, and resumed. Then compares the last checkpoints: the
hash of every leaf (parameters, average, optimizer state, step) and the position in the data.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training import files

ROOT = Path(__file__).resolve().parents[1]


def start(recipe: str, run_dir: Path, steps: int, every: int) -> subprocess.Popen:
    flags = f"--steps {steps} --checkpoint-every {every} --log-every {every} --sample-every 0"
    command = [sys.executable, "train.py", recipe, "--run-dir", str(run_dir), *flags.split()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"training failed:\n{output}")
    return output


def kill_somewhere(process: subprocess.Popen, folder: Path, writing: bool, wait: float) -> str:
    """Kills the process after it resumed; says where it was caught."""
    known = {p.name for p in folder.glob("[0-9]*")}
    while process.poll() is None:
        fresh = {p.name for p in folder.glob("[0-9]*")} - known
        if writing and fresh and list(folder.glob(".*.tmp")):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return "while writing or removing " + next(iter(folder.glob(".*.tmp")), Path("?")).name
        if not writing and fresh:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return "between checkpoints"
        time.sleep(0.0005)
    raise SystemExit("the run ended before it could be killed: take more --steps")


def last(folder: Path, step: int) -> dict:
    document = files.unseal((folder / str(step) / "checkpoint.json").read_text())
    return {"leaves": document["leaves"], "metadata": document["metadata"]}


def main(
    recipe: str = "digits", steps: int = 120, every: int = 4, kills: int = 5, seed: int = 0
) -> None:
    """Compares a killed and resumed run with one that never stopped.

    Args:
        recipe: to train.
        steps: of each run.
        every: steps between checkpoints.
        kills: SIGKILLs.
        seed: of the moments.
    """
    rng = np.random.default_rng(seed)
    work = Path(tempfile.mkdtemp(prefix="resume_"))
    finish(start(recipe, work / "whole", steps, every))
    folder = work / "killed" / "checkpoints"
    for number in range(kills):
        process = start(recipe, work / "killed", steps, every)
        where = kill_somewhere(process, folder, number % 2 == 1, rng.uniform(0, 1))
        print(f"kill {number + 1} of {kills}: {where}", flush=True)
    output = finish(start(recipe, work / "killed", steps, every))
    print(next(line for line in output.splitlines() if line.startswith("resuming")))

    whole, killed = (last(work / name / "checkpoints", steps) for name in ("whole", "killed"))
    differ = [k for k in whole["leaves"] if whole["leaves"][k] != killed["leaves"].get(k)]
    same = not differ and whole == killed
    print(f"{len(whole['leaves'])} leaves and the data position {whole['metadata']}: ", end="")
    print("bit-identical" if same else f"DIFFERENT: {differ[:5]}")
    shutil.rmtree(work)
    sys.exit(not same)


if __name__ == "__main__":
    tyro.cli(main)
