"""Fine-tuning: from a folder of random weights to a run, and to a folder again."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax.interop import load_stable_diffusion
from diffusion_jax.interop.sd_cli import checkpoint_command
from diffusion_jax.interop.sd_training import ExportOptions, FineTuning, export
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.sample_cli import sample_command
from tests.training import toy

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--log-every", "1", "--sample-every", "0"]

TUNE = """
import dataclasses
from pathlib import Path
import numpy as np
from diffusion_jax.data import BytePairs, caption_alone, captioned, from_arrays
from diffusion_jax.data.views import mapped
from diffusion_jax.training.recipes import load_recipe

COLOURS = ("red", "green", "blue")


def recipe(steps: int = 2, drop_text: float = 0.1):
    task = load_recipe(Path("configs/sd_finetune.py"))(
        Path("sd"), "colours", size=64, steps=steps, batch_size=2, drop_text=drop_text,
        bfloat16=False,
    )
    images = np.repeat(np.eye(3, dtype=np.uint8)[:, None, None] * 200, 64, 1).repeat(64, 2)

    def source(split, data_dir):
        plain = from_arrays("colours", images, np.arange(3))
        named = mapped(plain, lambda record: {"caption": COLOURS[record["label"]]})
        return captioned(named, task.conditioning.tokenizer, caption_alone, 1)

    return dataclasses.replace(task, source=source)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "configs").mkdir()
    (folder / "configs" / "sd_finetune.py").symlink_to(ROOT / "configs" / "sd_finetune.py")
    (folder / "configs" / "tune.py").write_text(TUNE)
    runpy.run_path(str(ROOT / "benchmarks" / "random_checkpoint.py"))["main"](folder / "sd")
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def run(folder):
    train_command(["configs/tune.py", "--run-dir", "tuned", *FEW])
    return Path("tuned")


def test_it_begins_with_the_folder(folder):
    """The first step's rate is 0: what one step leaves is what it began with."""
    train_command(["configs/tune.py", "--steps", "1", "--run-dir", "one", *FEW])
    params = load_params(load_task(Path("one")), Path("one"), "raw")
    assert toy.equal(
        jax.device_get(params), jax.device_get(load_stable_diffusion("sd").unet.params)
    )


def test_it_learns_and_becomes_a_folder(run, tmp_path):
    export(ExportOptions(run, Path("sd2"), raw=True))
    before, after = load_stable_diffusion("sd"), load_stable_diffusion("sd2")
    assert toy.equal(before.codec.params, after.codec.params)
    assert before.scheduler == after.scheduler
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.unet.params, after.unet.params)
    assert 0 < max(jax.tree.leaves(moved)) < 1e-2
    params = load_params(load_task(run), run, "raw")
    assert toy.equal(jax.device_get(params), jax.device_get(after.unet.params))
    files = ["--steps", "2", "--out", str(tmp_path / "a.png")]
    checkpoint_command(["--checkpoint", "sd2", "--prompt", "red", *files])
    sample_command([str(run), "--prompt", "red", "--num", "2", "--batch-size", "2", *files])


def test_the_command_that_writes_a_folder(run):
    """As a program of its own, where the module is there under two names."""
    asked = [sys.executable, "-m", "diffusion_jax.interop.sd_training", str(run), "sd3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(asked, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sample.py --checkpoint sd3" in done.stdout and Path("sd3/model_index.json").is_file()


def test_texts_are_read_and_dropped(run):
    task = load_task(run)
    assert isinstance(task, FineTuning)
    words = task.conditioning.tokenizer
    known = {"tokens": np.stack([words.encode("red"), words.encode("")])}
    told = task.told(jax.tree.map(jax.numpy.asarray, task.frozen(None)), known)
    assert told["text"].shape == (2, words.length, task.conditioning.size)
    np.testing.assert_allclose(told["text"][1], told["no_text"][1], atol=1e-5)
    assert np.abs(told["text"][0] - told["no_text"][0]).max() > 1e-3


def test_what_cannot_be_done(run, capsys):
    with pytest.raises(ValueError, match="is the checkpoint that it began with"):
        export(ExportOptions(run, Path("sd")))
    flags = ["--folder", "nothing", "--dataset", "none", "--run-dir", "never", *FEW]
    argv = ["configs/sd_finetune.py", *flags]
    assert "nothing" in toy.fails(train_command, argv, capsys)
