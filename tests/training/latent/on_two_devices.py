"""Run by test_two_devices.py in the fixture's folder, on two simulated devices; prints JSON."""

import contextlib
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from diffusion_jax.models import cuts
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.code_cli import any_command
from tests.training.latent.conftest import FEW


def losses(devices: int, *flags: str) -> list[float]:
    """Of codec, encoder in the step and U-Net on so many devices."""
    run = Path("_".join(("runs/fly", str(devices), *flags)))
    argv = ["configs/latent.py", "--on-the-fly", "--told", "hole", "--run-dir", str(run)]
    train_command([*argv, "--devices", str(devices), *flags, *FEW])
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def cut() -> list[float]:
    """With every layer's parameters cut in two, the encoder's among them."""
    with mock.patch.object(cuts, "LEAST", 16):
        return losses(2, "--fsdp", "2")


def drawn(run: str, devices: int, *flags: str) -> np.ndarray:
    npz = Path(f"drawn_{devices}.npz")
    files = ["--npz", str(npz), "--out", "drawn.png"]
    any_command([run, "--num", "4", "--batch-size", "4", "--devices", str(devices), *flags, *files])
    with np.load(npz) as arrays:
        return arrays["pictures"]


def apart(run: str, *flags: str) -> float:
    one, two = (drawn(run, devices, *flags) for devices in (1, 2))
    assert one.std() > 0
    return float(np.abs(one - two).max())


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):
        train_command(["configs/codes.py", "--run-dir", "runs/codes_2", *FEW])
        found = {
            "losses": [losses(1), losses(2), cut()],
            "codes": apart("runs/codes_2"),
            "latents": apart("runs/fly_2", "--steps", "2"),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
