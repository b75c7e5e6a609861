"""Two real processes of two CPU devices each: they train as one, are killed, and lose nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 240
PATIENCE = 200  # seconds


class Job:
    """The toy in two supervised processes."""

    def __init__(self, run_dir: Path, name: str = "log"):
        self.run_dir = run_dir
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.logs = [run_dir.with_suffix(f".{i}.{name}") for i in range(2)]
        env = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        self.supervisors = []
        for i, log in enumerate(self.logs):
            flags = {
                "--run-dir": run_dir, "--steps": STEPS, "--sample-every": 0,
                "--checkpoint-every": 20, "--restarts": 6, "--hang-minutes": 1, "--fsdp": 2,
                "--features": 512, "--coordinator": f"127.0.0.1:{port}", "--processes": 2,
                "--process": i,
            }  # fmt: skip
            words = [str(word) for pair in flags.items() for word in pair]
            with log.open("w") as file:
                command = [sys.executable, "train.py", "tests/training/toy.py", *words]
                self.supervisors.append(
                    subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file)
                )

    def newest(self) -> int:
        folder = self.run_dir / "checkpoints"
        names = os.listdir(folder) if folder.is_dir() else []
        return max((int(name) for name in names if name.isdigit()), default=0)

    def wait_until(self, done) -> None:
        limit = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < limit, self.said()
            time.sleep(0.02)

    def kill(self, process: int) -> None:
        """SIGKILL to the training that a supervisor watches over."""
        of = self.supervisors[process].pid
        children = Path(f"/proc/{of}/task/{of}/children")
        self.wait_until(lambda: children.read_text())
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)

    def finish(self, status: int) -> None:
        self.wait_until(lambda: all(s.poll() is not None for s in self.supervisors))
        assert [s.returncode for s in self.supervisors] == [status] * 2, self.said()

    def stop(self) -> None:
        for supervisor in self.supervisors:
            supervisor.terminate()
        for supervisor in self.supervisors:
            try:
                supervisor.wait(30)
            except subprocess.TimeoutExpired:
                supervisor.kill()

    def said(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.logs)

    def losses(self) -> list[tuple[int, float, float]]:
        lines = (self.run_dir / "metrics.jsonl").read_text().splitlines()
        return [(e["step"], e["loss"], e["grad_norm"]) for e in map(json.loads, lines)]

    def leaves(self) -> dict:
        """Of the last checkpoint: shapes, dtypes and fingerprints."""
        text = (self.run_dir / "checkpoints" / str(STEPS) / "checkpoint.json").read_text()
        return json.loads(text)["body"]["leaves"]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    folder = tmp_path_factory.mktemp("jobs")
    jobs = [Job(folder / "quiet")]
    try:
        jobs[0].finish(0)
        jobs.append(Job(folder / "killed"))
        for process, step in ((1, 40), (0, 100)):
            jobs[1].wait_until(lambda step=step: jobs[1].newest() >= step)
            assert jobs[1].newest() < STEPS
            jobs[1].kill(process)
        jobs[1].wait_until(lambda: jobs[1].newest() >= 160)
        jobs[1].supervisors[1].terminate()  # as a platform gives notice to one host
        jobs[1].finish(128 + signal.SIGTERM)
        jobs.append(Job(folder / "killed", "again"))
        jobs[2].finish(0)
        yield jobs
    finally:
        for job in jobs:
            job.stop()


def test_processes_of_other_arguments_are_refused(tmp_path):
    """Each of them trains, and recipe.json would be of process 0."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
    common = f"--steps 2 --run-dir {tmp_path} --coordinator 127.0.0.1:{port} --processes 2"
    processes = [
        subprocess.Popen(
            [sys.executable, "train.py", "tests/training/toy.py", *common.split(), *more],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for more in (["--process", "0"], ["--process", "1", "--seed", "5"])
    ]  # fmt: skip
    said = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    for text in said:
        assert "process 1 was started with --seed 5, and process 0 with 0" in text
    assert [process.returncode for process in processes] == [1, 1], said


@pytest.mark.slow
def test_killed_one_at_a_time_and_stopped_they_end_at_the_same_bits(jobs):
    quiet, killed, again = jobs
    assert "SIGKILL" in killed.logs[0].read_text() and "SIGKILL" in killed.logs[1].read_text()
    assert len({entry["fingerprint"] for entry in quiet.leaves().values()}) > 10
    assert again.leaves() == quiet.leaves()


@pytest.mark.slow
def test_a_notice_to_one_saves_in_all_after_the_same_step(jobs):
    _, killed, again = jobs
    said = [log.read_text() for log in killed.logs]
    (step,) = {text.split("stopped by SIGTERM at step ")[1].split(";")[0] for text in said}
    assert f"resuming {again.run_dir} at step {step}" in again.logs[0].read_text()


@pytest.mark.slow
def test_only_process_0_writes_and_each_step_is_logged_once(jobs):
    quiet, _, again = jobs
    end = {step: loss for step, loss, _ in quiet.losses()}
    assert [step for step, _, _ in again.losses()] == sorted({s for s, _, _ in again.losses()})
    assert {k: v for k, v, _ in again.losses() if k in end and k < 160} == {
        k: v for k, v in end.items() if k < 160
    }
    assert max(end) == STEPS
    for job in jobs:
        assert "examples/s" in job.logs[0].read_text()
        assert "examples/s" not in job.logs[1].read_text()


@pytest.mark.slow
def test_the_state_is_cut_between_the_processes(jobs):
    said = jobs[0].logs[0].read_text()
    assert "fsdp 2" in said
    found = re.search(r"state (\S+) kB, (\S+) kB a device", said)
    assert float(found[2]) < 0.9 * float(found[1])
