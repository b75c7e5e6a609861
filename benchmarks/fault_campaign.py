"""Runs of one recipe that faults end, and that go on: what `faults.py` counts."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.training import files

ROOT = Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """A process that has ended: its status, last step, where it had begun, and what it said."""

    status: int
    step: int
    resumed: int
    said: str


@dataclass
class Row:
    """One kind of fault: how often, the most steps done twice, and what was said."""

    fault: str
    times: int = 0
    lost: int = 0
    said: str = ""
    after: list[bool] = field(default_factory=list)

    def __str__(self) -> str:
        result = "bit-identical" if self.after and all(self.after) else f"DIFFERENT {self.after}"
        return f"| {self.fault} | {self.times} | {self.lost} | {self.said} | {result} |"


@dataclass
class Campaign:
    """Runs of one recipe in one folder."""

    recipe: str
    steps: int
    every: int
    work: Path

    def start(self, name: str, fault: str | None = None, flags: str = "") -> subprocess.Popen:
        """A training process; it writes the numbers of its steps to a pipe."""
        reading, writing = os.pipe()
        program = ["train.py"] if fault is None else ["benchmarks/faulty_training.py", fault, "--"]
        every = f"--checkpoint-every {self.every} --log-every {self.every} --sample-every 0"
        known = f"--run-dir {self.work / name} --steps {self.steps} {every} {flags}"
        process = subprocess.Popen(
            [sys.executable, *program, *self.recipe.split(), *known.split()],
            cwd=ROOT, env={**os.environ, "DIFFUSION_JAX_HEARTBEAT": str(writing)},
            pass_fds=[writing], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        os.close(writing)
        process.beats = open(reading, "rb", buffering=0)  # noqa: SIM115 (closed by `wait`)
        return process

    def wait(self, process: subprocess.Popen) -> Ended:
        """What became of it."""
        said, _ = process.communicate()
        with process.beats as beats:
            seen = beats.read().split()
        resumed = [line.split()[-1] for line in said.splitlines() if line.startswith("resuming")]
        done = not process.returncode and not seen  # it had nothing left to do, and says no more
        start = int(resumed[0]) if resumed else self.steps if done else 0
        return Ended(process.returncode, int(seen[-1]) if seen else start, start, said)

    def run(self, name: str, fault: str | None = None, flags: str = "") -> Ended:
        return self.wait(self.start(name, fault, flags))

    def goes_on(self, name: str, row: Row, before: Ended) -> None:
        """Finishes a run that had ended early, and compares it."""
        ended = self.run(name)
        row.lost = max(row.lost, before.step - ended.resumed)
        row.after.append(ended.status == 0 and self.last(name) == self.last("whole"))

    def last(self, name: str) -> dict:
        """Fingerprints and data position of a run's last checkpoint."""
        path = self.work / name / "checkpoints" / str(self.steps) / "checkpoint.json"
        document = files.unseal(path.read_text())
        return {"leaves": document["leaves"], "metadata": document["metadata"]}
