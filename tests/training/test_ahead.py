"""Compiling ahead: the command as a user meets it, and what it hands to the compiler."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from diffusion_jax.training import ahead, ahead_report
from diffusion_jax.training.chips import CHIPS
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.costs import Cost, Sent
from diffusion_jax.training.loop import device_batches, first_state
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.sampling import known_of
from diffusion_jax.training.sharding import MeshOptions, data_mesh
from tests.training import toy

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu, the TPU's compiler: pip install 'diffusion_jax[tpu]'",
)
LARGE = [
    ("imagenet64_adm", {}, 295.9),
    ("imagenet256_adm", {}, 553.8),
    ("imagenet256_dit", {}, 675.1),
    ("unclip_prior", {}, 1321.6),
    ("unclip_code_prior", {}, 886.1),
    ("unclip_decoder", {}, 3699.1),
    ("unclip_upsampler", {"size": 256}, 729.7),
    ("unclip_upsampler", {"size": 1024}, 282.1),
]


@LIBTPU
def test_a_recipe_is_compiled_for_a_slice_that_is_not_here(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.py").write_text("from tests.training.toy import recipe\n")
    flags = ["--compile-for", "v4:2x2x1", "--fsdp", "2", "--features", "64", "--data-dir", "none"]
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "configs/toy.py", *flags],
        cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr
    heading, _, step, *lines = done.stdout.splitlines()
    assert heading == "compiled for v4:2x2x1: 4 chips (data 2, fsdp 2, tensor 1)"
    assert step.startswith("training step, batch 8 (2 on a chip's part)")
    assert sum(line.startswith("sampling in 25 steps") for line in lines) == 1
    assert sum(line.startswith("  memory") and "fits" in line for line in lines) == 2
    assert sum("all-reduce" in line for line in lines) >= 1
    assert not (tmp_path / "runs").exists()


@LIBTPU
def test_a_slice_that_nobody_wired_is_refused():
    with pytest.raises(ValueError, match=r"no TPU topology 'v5e:3x3': .*not divisible"):
        ahead.topology_devices("v5e:3x3")
    assert "TPU_WORKER_HOSTNAMES" not in os.environ  # which says that this host is a TPU's


def test_another_topology_is_refused_before_anything_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text("from tests.training.toy import recipe\n")
    err = toy.fails(train_command, ["toy.py", "--compile-for", "v5e:16"], capsys)
    assert err.startswith("error: 'v5e:16' has 1 axes") and len(err.splitlines()) == 1


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'diffusion_jax\[tpu\]'"):
        ahead.topology_devices("v5e:2x2")


CASES = ["digits", "shapes_captions", "shapes_layout", "shapes_inpainting", "shapes_upsampling"]


@pytest.mark.parametrize("stem", [*CASES, "shapes_segmentation", "digits_heat"])
def test_a_batch_is_what_training_reads(stem):
    recipe = load_recipe(CONFIGS / f"{stem}.py")(batch_size=4)
    mesh = data_mesh(1)
    stream = device_batches(recipe, recipe.source("train", None), 0, mesh)
    read = next(stream).arrays
    stream.close()
    batch = ahead.abstract_batch(recipe, mesh)
    assert set(batch) - {"label"} == set(read) - {"label"}
    for name in read:
        x = batch[name]
        assert (x.shape, x.dtype) == (read[name].shape, read[name].dtype), name


@pytest.mark.parametrize("stem", [*CASES, "digits_heat", "digits_cold"])
def test_what_sampling_is_told_has_the_shapes_of_real_examples(stem):
    recipe = load_recipe(CONFIGS / f"{stem}.py")()
    source = recipe.source("test", None)
    told = known_of(recipe, [source[0], source[1]])
    blank = jax.eval_shape(lambda: recipe.conditioning.blank((2, *recipe.image_shape)))
    assert {n: x.shape for n, x in told.items()} == {n: x.shape for n, x in blank.items()}


def test_step_and_sampler_compile_as_they_run():
    """On the CPU: a step that trains, a sampler that draws, and operations that agree."""
    recipe = dataclasses.replace(toy.recipe(features=32), source=fail)
    mesh = data_mesh(1)
    step = ahead.compile_step(recipe, mesh)
    assert step.cost is not None and 0.5 < step.cost.flops / step.flops <= 1
    few, many = (ahead.compile_sample(recipe, mesh, 8, steps) for steps in (5, 50))
    assert few.cost is not None and many.cost is not None
    assert many.flops == 10 * few.flops
    assert many.cost.flops / few.cost.flops == pytest.approx(10, rel=0.01)  # labels embed once


def test_sampling_that_starts_from_data_reads_none():
    recipe = load_recipe(CONFIGS / "digits_heat.py")(levels=4)
    small = dataclasses.replace(recipe, model=toy.from_linen(toy.Tiny(4)), source=fail)
    assert ahead.compile_sample(small, data_mesh(1), 8, 4).cost is not None


def fail(split, data_dir):
    raise AssertionError("the data were asked for")


@pytest.mark.slow
@pytest.mark.parametrize("stem, arguments, millions", LARGE, ids=str)
def test_large_recipes_have_their_papers_size_and_a_loss(stem, arguments, millions):
    recipe = load_recipe(CONFIGS / f"{stem}.py")(batch_size=2, **arguments)
    recipe.check()
    optimizer = recipe.optimizer(recipe.learning_rate)
    state = jax.eval_shape(lambda key: first_state(recipe, optimizer, key), jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(state.params))
    assert round(count / 1e6, 1) == millions
    batch = ahead.abstract_batch(recipe, data_mesh(1))
    key = jax.eval_shape(lambda: jax.random.key(0))
    loss, (metrics, _) = jax.eval_shape(recipe.loss(), state.params, state.extra, key, batch)
    assert loss.shape == () and "loss" in metrics
    assert ({"mse", "bits"} <= set(metrics)) == ("prior" not in stem)  # learned variances'


def test_a_mesh_is_chosen_for_the_devices_and_the_memory_that_are_named():
    devices = jax.devices() * 1
    assert MeshOptions().make(0, devices, memory=2**30).shape["data"] == len(devices)
    with pytest.raises(ValueError, match=r"2 devices were asked for, and there are 1\."):
        MeshOptions(devices=2).make(0, devices[:1])


def test_a_report_says_what_binds_and_what_is_left():
    chip, mesh = CHIPS["v5e"], data_mesh(1)
    cost = Cost(0.5 * chip.flops, 2.0 * chip.bandwidth, {("all-reduce", "1"): Sent(3, 2e9)})
    compiled = ahead_report.Compiled(cost, 10 * 2**30, int(0.4 * chip.flops), 0.0, 61.2)
    text = ahead_report.program("training step", compiled, chip, mesh, 512)
    assert "compiled in 61 s" in text and "fits, 5.75 GiB to spare" in text
    assert "2 GB a chip: 3 all-reduce 2 GB" in text and "bound by memory" in text
    assert "256 examples a second, MFU 20.0%" in text


def test_a_program_that_is_refused_says_what_it_asked_for():
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (298.12G) exceeds available HBM (15.75G)."
    )
    needed = ahead.memory_asked(message)
    assert needed == int(298.12 * 2**30)
    refused = ahead_report.Compiled(None, needed, 1, 0.0, 1.0)
    text = ahead_report.program("training step", refused, CHIPS["v5e"], data_mesh(1), 8)
    assert "298.12 of the 15.75 GiB" in text and "doesn't fit" in text
    assert ahead.memory_asked("INTERNAL: something else") is None
