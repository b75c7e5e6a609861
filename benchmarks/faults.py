"""What a run survives: python benchmarks/faults.py

Trains a recipe once without a fault. Then again for each fault: killed at random moments and at
every stage of a checkpoint's writing, asked to stop, with damaged files, a full or read-only disk,
a data worker that hangs, a NaN in a batch. Each run goes on by the same command, and its last
checkpoint is compared with the first run's: every leaf's fingerprint and the data's position.
Full and read-only disks need the right to mount a tmpfs, and are left out without.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tyro
from fault_campaign import ROOT, Campaign, Ended, Row

from diffusion_jax.training import checkpoints, files
from diffusion_jax.training.platform import set_xla_flags

Fault = Literal["batches", "disks", "damages", "stops", "stages", "kills"]
STAGES = [
    *("kill:clear_leftovers:2", "kill:write_arrays:2", "after:write_arrays:2", "kill:add_up:2"),
    *("kill:inventory:2", "kill:commit:2", "kill:_sync_tree:2", "kill:rename:2", "after:rename:2"),
    *("after:commit:2", "kill:remove:1", "after:rename:4", "kill:discard:1", "after:discard:1"),
]


def random_kills(campaign: Campaign, kills: int, rng: np.random.Generator) -> Row:
    """One run after another, killed somewhere between its first step and its end."""
    row, name, number = Row("SIGKILL at a random moment"), "killed 0", 0
    before: Ended | None = None
    while row.times < kills:
        process = campaign.start(name.replace(" ", "_"))
        process.beats.read(1)  # its first step is done
        time.sleep(rng.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        ended = campaign.wait(process)
        if before is not None:
            row.lost = max(row.lost, before.step - ended.resumed)
        if ended.status == 0:  # it had ended before
            row.after.append(campaign.last(name.replace(" ", "_")) == campaign.last("whole"))
            number, before = number + 1, None
            name = f"killed {number}"
            continue
        row.times, before = row.times + 1, ended
    campaign.goes_on(name.replace(" ", "_"), row, before)
    row.said = "resuming ... at step N"
    return row


def stage_kills(campaign: Campaign) -> Row:
    row = Row("SIGKILL at each stage of writing a checkpoint", said="resuming ... at step N")
    for number, stage in enumerate(STAGES):
        ended = campaign.run(f"stage_{number}", stage)
        if ended.status != -signal.SIGKILL:
            raise SystemExit(f"{stage} was never reached:\n{ended.said}")
        row.times += 1
        campaign.goes_on(f"stage_{number}", row, ended)
    return row


def stops(campaign: Campaign, rng: np.random.Generator) -> Row:
    row = Row("SIGTERM")
    for number in range(3):
        process = campaign.start(f"stopped_{number}")
        process.beats.read(1)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGTERM)
        ended = campaign.wait(process)
        row.times, row.said = row.times + 1, ended.said.splitlines()[-1]
        campaign.goes_on(f"stopped_{number}", row, ended)
    return row


def damages(campaign: Campaign) -> Iterator[Row]:
    """Every file of the newest checkpoint; from the last damage the run goes on."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    for what, damage in (("a flipped byte", flip), ("cut in half", cut), ("missing", Path.unlink)):
        row = Row(f"each file of a checkpoint in turn: {what}")
        stopped = campaign.run(f"damaged_{what.split()[-1]}", f"kill:commit:{4}")
        whole = campaign.work / f"damaged_{what.split()[-1]}" / "checkpoints"
        newest = checkpoints.steps(whole)[-1]
        document = files.unseal((whole / str(newest) / "checkpoint.json").read_text())
        like = _like(document)
        for path in sorted(
            p for p in (whole / str(newest)).rglob("*") if p.is_file() and p.stat().st_size
        ):
            copy = campaign.work / "copy"
            shutil.copytree(whole, copy)
            damage(copy / path.relative_to(whole))
            heard: list[str] = []
            found = checkpoints.restore_latest(copy, like, warn=heard.append)
            if found.step == newest or not heard:
                raise SystemExit(f"{what} of {path} went unnoticed")
            row.times += 1
            last_damage = path
            shutil.rmtree(copy)
        row.said = heard[0].replace(str(copy), "...")
        damage(last_damage)
        campaign.goes_on(f"damaged_{what.split()[-1]}", row, stopped)
        yield row


def _like(document: dict) -> dict:
    """Numpy arrays as a checkpoint's manifest has them, in a nested dict."""
    tree: dict = {}
    for path, leaf in document["leaves"].items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = np.zeros(leaf["shape"], leaf["dtype"])
    return tree


def disks(campaign: Campaign) -> Iterator[Row]:
    """A tmpfs with room for one checkpoint and a half; a folder that turns read-only."""
    last = campaign.work / "whole/checkpoints" / str(campaign.steps)
    size = sum(p.stat().st_size for p in last.rglob("*"))
    small = campaign.work / "small"
    small.mkdir()
    if not mounts("-t", "tmpfs", "-o", f"size={int(1.5 * size) + 2**18}", "tmpfs", small):
        print("full and read-only disks: left out, nothing can be mounted", file=sys.stderr)
        return
    try:
        ended = campaign.run("small/run", flags="--keep 1")
        row = Row("a full disk", 1, said=error_of(ended, campaign))
        mounts("-o", "remount,size=1g", small)
        campaign.goes_on("small/run", row, ended)
        yield row
    finally:
        subprocess.run(["umount", "-l", small], check=False)

    process = campaign.start("locked")
    folder = campaign.work / "locked/checkpoints"
    while len(checkpoints.steps(folder)) < 2:
        time.sleep(0.01)
    mounts("--bind", folder, folder)
    try:
        while process.poll() is None and not mounts("-o", "remount,ro,bind", folder):
            time.sleep(0.002)  # a file that is open keeps it writable
        ended = campaign.wait(process)
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
    row = Row("a folder that can't be written any more", 1, said=error_of(ended, campaign))
    campaign.goes_on("locked", row, ended)
    yield row


def mounts(*arguments: str | Path) -> bool:
    """Whether this could be mounted."""
    return not subprocess.run(["mount", *arguments], capture_output=True).returncode


def error_of(ended: Ended, campaign: Campaign) -> str:
    """The sentence that a failed run ended with."""
    if ended.status != 1:
        raise SystemExit(f"it should have failed:\n{ended.said}")
    return ended.said.splitlines()[-1].replace(str(campaign.work), "...")


def batches(campaign: Campaign) -> Iterator[Row]:
    middle = campaign.steps // 2 + 1
    row = Row("a data worker that hangs, --restarts 1", 1)
    ended = supervised(campaign, "hung", f"hang:{middle}")
    silent = [line for line in ended.splitlines() if "silent" in line]
    if not silent:
        raise SystemExit(f"it should have hung:\n{ended}")
    row.said = silent[0]
    row.lost = middle - 1 - int(ended.split("resuming")[1].split("step ")[1].split()[0])
    row.after.append(campaign.last("hung") == campaign.last("whole"))
    yield row
    row = Row("NaN in a batch", 1)
    broken = campaign.run("nan", f"nan:{middle}")
    row.said = error_of(broken, campaign)
    campaign.goes_on("nan", row, broken)
    yield row


def supervised(campaign: Campaign, name: str, fault: str) -> str:
    """Such a run under --restarts 1; a minute of silence is a hang."""
    flags = (
        f"--run-dir {campaign.work / name} --steps {campaign.steps} --sample-every 0 "
        f"--checkpoint-every {campaign.every} --restarts 1 --hang-minutes 1"
    )
    program = [
        "benchmarks/faulty_training.py",
        fault,
        "--",
        *campaign.recipe.split(),
        *flags.split(),
    ]
    done = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


def main(
    recipe: str = "digits",
    steps: int = 60,
    every: int = 5,
    kills: int = 50,
    seed: int = 0,
    faults: tuple[Fault, ...] = get_args(Fault),
) -> None:
    """Prints a table of faults and what they cost.

    Args:
        recipe: to train, with its flags, such as "tests/training/toy.py --features 8000".
        steps: of each run.
        every: steps between checkpoints.
        kills: at random moments.
        seed: of the moments.
        faults: which; all by default.
    """
    set_xla_flags()
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults_") as work:
        campaign = Campaign(recipe, steps, every, Path(work))
        if (whole := campaign.run("whole")).status:
            raise SystemExit(f"training failed:\n{whole.said}")
        parts: dict[Fault, Callable[[], Iterator[Row]]] = {
            "batches": lambda: batches(campaign),
            "disks": lambda: disks(campaign),
            "damages": lambda: damages(campaign),
            "stops": lambda: iter([stops(campaign, rng)]),
            "stages": lambda: iter([stage_kills(campaign)]),
            "kills": lambda: iter([random_kills(campaign, kills, rng)]),
        }
        print("| fault | times | steps done again, at most | what was said | after resuming |")
        print("|---|---:|---:|---|---|", flush=True)
        fine = True
        for fault in faults:
            for row in parts[fault]():
                print(row, flush=True)
                fine = fine and all(row.after)
    print(f"{recipe}, {steps} steps, a checkpoint every {every}; ", end="")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes")
    sys.exit(not fine)


if __name__ == "__main__":
    tyro.cli(main)
