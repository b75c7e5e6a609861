"""sample.py --checkpoint, on a tiny folder of random weights."""

import json
import re
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data.prompts import WeightedTokens
from diffusion_jax.interop import sd_cli
from diffusion_jax.interop.sd_cli import checkpoint_command, told
from diffusion_jax.interop.sd_options import CheckpointOptions
from diffusion_jax.interop.sd_plan import plan_of
from diffusion_jax.interop.sd_system import Prompted
from diffusion_jax.interop.stable_diffusion import SCHEDULER
from tests.interop.sd import blank, edit, system
from tests.training import toy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    script = runpy.run_path(str(ROOT / "benchmarks" / "random_checkpoint.py"))
    script["main"](path / "sd")
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path / "grey.png")
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path / "light.png")
    hole = np.zeros((64, 64), np.uint8)
    hole[16:48, 16:48] = 255
    Image.fromarray(hole).save(path / "hole.png")
    return path


def drawn(folder, *flags):
    asked = ["--checkpoint", str(folder / "sd"), "--steps", "3", "--out", str(folder / "o.png")]
    checkpoint_command([*asked, "--npz", str(folder / "o.npz"), *flags])
    with np.load(folder / "o.npz") as arrays:
        return arrays["pictures"]


def test_a_picture_depends_on_its_number_seed_and_text(folder):
    two = drawn(folder, "--prompt", "a cat", "a (dog:1.4)", "--batch-size", "2")
    assert two.shape == (2, 64, 64, 3) and np.isfinite(two).all()
    one = drawn(folder, "--prompt", "a cat", "--num", "1")
    np.testing.assert_allclose(one[0], two[0], atol=1e-4)
    seeds = drawn(folder, "--prompt", "a cat", "--seeds", "5", "0")
    np.testing.assert_allclose(seeds[1], one[0], atol=1e-4)
    assert np.abs(seeds[0] - seeds[1]).max() > 0.01
    other = drawn(folder, "--prompt", "a cat", "--negative", "a dog")
    assert np.abs(other - one).max() > 1e-4


def test_a_hole_is_filled_and_the_rest_kept(folder):
    flags = ["--inpaint", str(folder / "grey.png"), "--mask", str(folder / "hole.png")]
    found = drawn(folder, "--prompt", "a cat", *flags)[0]
    hole = np.zeros((64, 64), bool)
    hole[16:48, 16:48] = True
    np.testing.assert_array_equal(found[~hole], np.float32(90) / np.float32(127.5) - 1)
    assert np.abs(found[hole] - found[0, 0, 0]).max() > 0.01


def test_a_picture_to_begin_with(folder):
    near, far = (
        drawn(folder, "--prompt", "a", "--init-image", str(folder / "grey.png"), "--strength", s)
        for s in ("0.4", "1")
    )
    assert near.shape == far.shape == (1, 64, 64, 3) and np.abs(near - far).max() > 0.01
    light = ["--init-image", str(folder / "light.png"), "--strength", "0.4"]
    assert np.abs(drawn(folder, "--prompt", "a", *light) - near).max() > 0.01


def test_variations_begin_at_picture_0(folder):
    one = drawn(folder, "--prompt", "a", "--sampler", "ddim")
    some = drawn(folder, "--prompt", "a", "--sampler", "ddim", "--variations", "0.2", "--num", "2")
    np.testing.assert_allclose(some[0], one[0], atol=1e-4)
    assert np.abs(some[1] - one[0]).max() > 1e-3


def test_a_codec_in_tiles_and_one_by_one(folder):
    whole = drawn(folder, "--prompt", "a", "b", "--batch-size", "2")
    asked = ["--prompt", "a", "b", "--batch-size", "2", "--sliced", "--devices", "1"]
    one_tile = drawn(folder, *asked, "--tile", "64")
    np.testing.assert_allclose(one_tile, whole, atol=1e-4)
    tiles = drawn(folder, *asked, "--tile", "32")
    assert tiles.shape == whole.shape and 1e-3 < np.abs(tiles - whole).mean() < 0.5


@pytest.mark.parametrize(
    ("said", "xl", "size"),
    [
        ({"sample_size": 32}, False, 128),
        ({"sample_size": 32, "_diffusers_version": "0.8.1"}, False, 256),
        ({"sample_size": 32, "_diffusers_version": "0.8.1"}, True, 128),
        ({"sample_size": 96, "_diffusers_version": "0.8.1"}, False, 384),
        ({"sample_size": 32, "_diffusers_version": "0.10.0"}, False, 128),
        ({"sample_size": [8, 12]}, False, (32, 48)),
        ({}, False, 256),
    ],
)
def test_the_size_of_pictures(said, xl, size, folder, tmp_path):
    """Of 1.x, diffusers wrote 32 for 64 before its version 0.9."""
    shutil.copytree(folder / "sd", tmp_path / "sd")
    config = tmp_path / "sd" / "unet" / "config.json"
    known = {k: v for k, v in json.loads(config.read_text()).items() if k != "sample_size"}
    config.write_text(json.dumps(known | said))
    if xl:
        edit(tmp_path / "sd" / "model_index.json", _class_name="StableDiffusionXLPipeline")
    found = plan_of(CheckpointOptions(tmp_path / "sd"))
    assert found.size == (size if isinstance(size, tuple) else (size, size))


def test_one_picture_is_drawn_by_one_device(monkeypatch):
    devices = jax.local_devices()[:1] * 2
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    asked = CheckpointOptions(Path("x"), ("a",), devices=2)
    assert sd_cli.local_mesh(asked, 1).size == 1


def test_original_size_and_crop_are_told():
    parts, shape = system(xl=True), (1, 1, 7)
    ids = WeightedTokens(np.full(shape, 10), np.ones(shape, np.float32))
    asked = CheckpointOptions(Path("x"), ("a",), original_size=(100, 200), crop=(3, 4))
    known = told(asked, parts, Prompted((ids, ids), (ids, ids)), (16, 24))
    for name in ("vector", "negative_vector"):
        assert known[name][0, 6:].tolist() == [100, 200, 3, 4, 16, 24]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--size 60 64", "60x64 can't be drawn.*multiples of 8"),
        ("--init-image grey.png --size 32 32", "--init-image: .*64x64 pixels.*32x32 are needed"),
        ("--inpaint grey.png --mask black.png", "is all black"),
        ("--init-image none.png", "No such file.*none.png"),
        ("--original-size 64 64", "--original-size is for an SDXL"),
        ("--crop 0 1", "--crop is for an SDXL"),
        ("--tile 33", "tile of 33.*multiple of 16"),
        ("--init-image grey.png --strength 0.01", "--strength is 0.01.* of 50 steps"),
        ("--lora none.safetensors", "--lora: there is no none.safetensors"),
        ("--tokenizer .", "has 0 of the tokenizers"),
        ("--variant fp16", "no part has a variant 'fp16'; there is none"),
        ("--checkpoint v1-5.safetensors", "--checkpoint: there is no v1-5.safetensors"),
        ("--checkpoint one.safetensors", "--checkpoint is one file.*add --tokenizer"),
        ("--checkpoint one.safetensors --tokenizer sd --size 96 64", "96x64.*multiples of 64"),
        ("--checkpoint one.safetensors --tokenizer sd --init-image grey.png", "512x512 are needed"),
        ("--checkpoint one.safetensors --tokenizer sd --crop 0 1", "--crop is for an SDXL"),
        ("--checkpoint one.safetensors --tokenizer sd", "pad must be in 0..513, not 49407"),
        ("--checkpoint depth.safetensors --tokenizer sd", "reads 5 channels"),
        (
            "--checkpoint hole.safetensors --tokenizer sd --init-image grey.png",
            "draws parts of pic",
        ),
        ("--checkpoint lms", "'LMSDiscreteScheduler' isn't followed here.*--sampler"),
        ("--steps 1001", "1001"),
    ],
)
def test_what_is_refused_before_gigabytes_are_read(folder, capsys, monkeypatch, flags, message):
    def never(options):
        raise AssertionError("the weights were read")

    monkeypatch.setattr(sd_cli, "load", never)
    monkeypatch.chdir(folder)
    if not (folder / "one.safetensors").exists():
        blank(folder / "one.safetensors", 768)
        blank(folder / "depth.safetensors", 768, channels=5)
        blank(folder / "hole.safetensors", 768, channels=9)
        shutil.copytree(folder / "sd", folder / "lms")
        edit(folder / "lms" / SCHEDULER, _class_name="LMSDiscreteScheduler")
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "black.png")
    asked = ["--checkpoint", "sd", "--prompt", "a", "--out", "o.png", *flags.split()]
    said = toy.fails(checkpoint_command, asked, capsys)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--checkpoint needs a text"),
        ("--prompt a --mask x.png", "--inpaint and --mask go together"),
        ("--prompt a --seeds 1 2 --num 3", "--seeds has 2 and --num is 3"),
        ("--prompt a --steps 0", "--steps is 0"),
        ("--prompt a --devices 0", "--devices is 0"),
        ("--prompt a --seeds 1 --seed 2", "--seed and --seeds were both given"),
        ("--prompt a --lora-scale 2", "--lora-scale belongs to --lora"),
        ("--prompt a --size 0 64", "--size is"),
        ("--prompt a --variations 2 --num 2", "--variations is 2"),
        ("--prompt a --variations 0.5", "needs --num"),
        ("--prompt a --tile 0", "--tile is 0"),
        ("--prompt a --sliced --seeds 1", "--sliced goes with"),
        ("--prompt a --variations 0.5 --seeds 1 2", "--variations are of one --seed"),
        ("--prompt a --original-size 0 1", "--original-size is"),
        ("--prompt a --crop -1 0", "--crop is"),
        ("--prompt a --strength 0.5", "--strength belongs to --init-image"),
    ],
)
def test_refusals(folder, capsys, flags, message):
    asked = ["--checkpoint", str(folder / "sd"), "--out", str(folder / "o.png"), *flags.split()]
    said = toy.fails(checkpoint_command, asked, capsys)
    assert re.search(message, said), said


def test_what_a_tpu_would_need(folder, capsys):
    pytest.importorskip("libtpu")
    flags = ["--compile-for", "v5e:2x2", "--batch-size", "4", "--bfloat16", "--steps", "2"]
    checkpoint_command(["--checkpoint", str(folder / "sd"), "--prompt", "a cat", *flags])
    said = capsys.readouterr().out
    assert "compiled for v5e:2x2: 4 chips" in said and "fits" in said
    with pytest.raises(ValueError, match="--batch-size"):
        few = [*flags[:2], "--batch-size", "3"]
        checkpoint_command(["--checkpoint", str(folder / "sd"), "--prompt", "a", *few])
