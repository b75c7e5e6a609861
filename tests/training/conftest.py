"""A folder like a checkout, with a run in it."""

import os
from pathlib import Path

import pytest

from diffusion_jax.training.cli import train_command

TOY = """
from tests.training.toy import recipe
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder like a checkout, with a toy recipe and a run of it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").mkdir()
    (folder / "configs" / "toy.py").write_text(TOY)
    before = Path.cwd()
    os.chdir(folder)
    flags = ["--steps", "4", "--log-every", "2", "--checkpoint-every", "2", "--sample-every", "0"]
    train_command(["configs/toy.py", "--run-dir", "runs/toy", *flags])
    os.chdir(before)
    return folder


@pytest.fixture
def checkout(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained
