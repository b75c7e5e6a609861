"""Models of latents: the kept data set, training on it and on the fly, sampling, editing."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.data import digits, from_arrays, save_png
from diffusion_jax.models import ClassLabels, Joined
from diffusion_jax.systems.latent import LatentDiffusion
from diffusion_jax.training import latents as module
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.codecs import load_codec
from diffusion_jax.training.evaluate_cli import evaluate_command
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import (
    CodecRun,
    codec_params,
    codec_with,
    codes,
    latents,
    scale_of,
)
from diffusion_jax.training.loop import first_state
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.runs import load_experiment
from diffusion_jax.training.sample_cli import sample_command
from diffusion_jax.training.sharding import data_mesh, place
from diffusion_jax.training.stages import load_latent_diffusion, load_stage
from diffusion_jax.training.step import make_step
from tests.training import toy
from tests.training.latent.conftest import FEW, ROOT

KL, VQ = Path("runs/kl"), Path("runs/vq")


def pictures(count: int) -> jax.Array:
    source = digits("test")
    return jnp.stack([source[i]["image"] for i in range(count)]) / 127.5 - 1


@pytest.fixture
def few_a_file(folder, monkeypatch):
    monkeypatch.setattr(module, "PER_FILE", 100)


def test_latents_are_what_the_codec_says(few_a_file):
    source = latents(KL, digits("test"))
    task, params = load_codec(KL), codec_params(KL)
    z = task.encode(params, pictures(596))
    scale = scale_of(KL)
    for i in (0, 99, 100, 595):  # at the ends of files
        expected = (z[i] - scale.shift) * scale.scale
        np.testing.assert_allclose(source[i]["image"], expected, atol=1e-5)
        assert source[i]["label"] == digits("test")[i]["label"]
    assert source[0]["image"].dtype == np.float32 and source.image_shape == (4, 4, 2)
    assert len(source) == 596 and source.classes == 10


def test_they_are_of_the_size_of_one(few_a_file):
    source = latents(KL, digits("train"))
    z = np.stack([source[i]["image"] for i in range(len(source))])
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def test_each_file_is_computed_once(few_a_file, monkeypatch):
    source = latents(KL, digits("test"))
    files = sorted(Path(KL, "latents").glob("*/*.npy"))
    times = [file.stat().st_mtime_ns for file in files]
    gone = next(f for f in files if np.load(f).shape == (96, 4, 4, 2))
    before = np.load(gone)
    gone.unlink()
    again = latents(KL, digits("test"))
    np.testing.assert_array_equal(np.load(gone), before)
    others = [f for f in files if f != gone]
    assert [f.stat().st_mtime_ns for f in others] == [
        t for f, t in zip(files, times, strict=True) if f != gone
    ]
    assert toy.equal(again[500], source[500])


def test_another_architecture_has_latents_of_its_own(few_a_file, monkeypatch):
    """Its parameters have the same shapes, and the run the same digest."""
    before = latents(KL, digits("test"))[0]["image"]
    task = load_codec(KL)
    other = dataclasses.replace(task, network=task.network.clone(groups=1))
    monkeypatch.setattr(module, "load_codec", lambda run_dir: other)
    assert np.abs(latents(KL, digits("test"))[0]["image"] - before).max() > 0.01


def test_codes_are_the_nearest(folder):
    source = codes(VQ, digits("test"))
    task, params = load_codec(VQ), codec_params(VQ)
    expected = task.codes(params, pictures(3))
    for i in range(3):
        np.testing.assert_array_equal(source[i]["image"], expected[i])
    z = latents(VQ, digits("test"))
    coder = codec_with(CodecRun(VQ), CodecRun(VQ).arrays(None))
    decoded = coder.decode(jnp.asarray(z[0]["image"])[None])
    alone = task.decode_codes(params, expected[:1])
    np.testing.assert_allclose(decoded, np.clip(alone, -1, 1), atol=1e-5)
    # what isn't quite a code's vector is decoded as the nearest one
    near = jnp.asarray(z[0]["image"])[None] + 1e-4
    np.testing.assert_allclose(coder.decode(near), decoded, atol=1e-6)


def test_other_pictures_and_codecs_are_refused(folder):
    large = from_arrays("large", np.zeros((2, 16, 16, 1), np.uint8))
    with pytest.raises(ValueError, match="large has pictures of"):
        latents(KL, large)
    with pytest.raises(ValueError, match="runs/kl has no codes"):
        codes(KL, digits("test"))
    with pytest.raises(FileNotFoundError):
        latents(Path("runs/nothing"), digits("test"))


def test_on_the_fly_is_the_same_step(folder):
    """Kept latents and those encoded in the step give one loss and one gradient, and what is
    told is dropped from the same examples."""
    told = Joined((ClassLabels(10),), together=0.5)
    recipe = load_recipe(Path("configs/latent.py"))
    found = []
    for on_the_fly in (False, True):
        task = dataclasses.replace(recipe(on_the_fly=on_the_fly), conditioning=told)
        source = task.source("train", None)
        records = [source[i] for i in range(8)]
        image = np.stack([r["image"] for r in records]).astype(np.float32)
        batch = {
            "image": jnp.asarray(image / 127.5 - 1 if on_the_fly else image),
            "label": jnp.asarray([r["label"] for r in records]),
        }
        optimizer = task.optimizer(task.learning_rate)
        state = place(first_state(task, optimizer, jax.random.key(0)), data_mesh(1))
        before = jax.device_get(state.extra)
        step = make_step(task.loss(), optimizer, state)
        state, metrics = step(state, jax.random.key(1), batch)
        assert toy.equal(jax.device_get(state.extra), before)  # nobody trains the codec
        found.append((metrics["loss"], state.params))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found[0][1], found[1][1])
    assert max(jax.tree.leaves(apart)) < 1e-4


def run(*flags: str) -> None:
    train_command(["configs/latent.py", *flags, *FEW])


def test_trained_and_sampled(folder, tmp_path):
    run("--run-dir", "runs/latent")
    out, npz = tmp_path / "a.png", tmp_path / "a.npz"
    common = ["runs/latent", "--num", "5", "--steps", "3", "--batch-size", "4"]
    sample_command([*common, "--out", str(out), "--npz", str(npz)])
    drawn = np.load(npz)["pictures"]
    assert drawn.shape == (5, 8, 8, 1) and np.abs(drawn).max() <= 1
    experiment = load_experiment(Path("runs/latent"))
    assert experiment.shape == (4, 4, 2) and experiment.image_shape == (8, 8, 1)


def test_a_picture_begins_and_a_mask_holds(folder, tmp_path):
    run("--run-dir", "runs/latent")
    picture = digits("test")[3]["image"]
    save_png(tmp_path / "digit.png", picture)
    mask = np.zeros((8, 8, 1), np.uint8)
    mask[:, 4:] = 255
    save_png(tmp_path / "mask.png", mask)
    files = ["--out", str(tmp_path / "b.png"), "--npz", str(tmp_path / "b.npz")]
    common = ["runs/latent", "--num", "2", "--steps", "4", *files]
    sample_command(
        [*common, "--inpaint", str(tmp_path / "digit.png"), "--mask", str(tmp_path / "mask.png")]
    )
    drawn = np.load(tmp_path / "b.npz")["pictures"]
    kept = np.broadcast_to(picture[:, :4] / np.float32(127.5) - 1, (2, 8, 4, 1))
    np.testing.assert_allclose(drawn[:, :, :4], kept, atol=1e-6)
    sample_command([*common, "--init-image", str(tmp_path / "digit.png"), "--strength", "0.001"])
    drawn = np.load(tmp_path / "b.npz")["pictures"]
    coder = codec_with(CodecRun(KL), CodecRun(KL).arrays(None))
    again = coder.decode(coder.encode(jnp.asarray(kept.dtype.type(picture / 127.5 - 1))[None]))
    np.testing.assert_allclose(drawn, np.broadcast_to(again, drawn.shape), atol=0.05)


@pytest.mark.parametrize("told", ["hole", "low", "map"])
def test_conditions_that_are_pictures(folder, tmp_path, told):
    fly = [] if told == "map" else ["--on-the-fly"]
    run("--told", told, *fly, "--run-dir", f"runs/{told}")
    files = ["--out", str(tmp_path / "c.png"), "--npz", str(tmp_path / "c.npz")]
    sample_command([f"runs/{told}", "--num", "2", "--steps", "2", *files])
    with np.load(tmp_path / "c.npz") as arrays:
        drawn, known = arrays["pictures"], {name: jnp.asarray(v) for name, v in arrays.items()}
    task, coder = load_experiment(Path(f"runs/{told}")), CodecRun(KL).arrays(None)
    assert isinstance(task, LatentExperiment)
    read = task.told({"codec": coder}, known)
    latents_of = codec_with(CodecRun(KL), coder).encode
    match told:
        case "hole":
            kept = known["mask"] == 1
            assert 0 < kept.mean() < 1
            np.testing.assert_array_equal(drawn[kept], known["image"][kept])
            holed = latents_of(jnp.asarray(known["image"] * known["mask"]))
            np.testing.assert_allclose(read["masked"], holed, atol=1e-5)
            assert task.conditioning.condition(read).image.shape == (2, 4, 4, 3)
        case "low":
            assert task.conditioning.condition(read).image.shape == (2, 4, 4, 1)
        case "map":
            shares = task.conditioning.condition(read).image
            white = (known["segmentation"] == 1).reshape(2, 4, 2, 4, 2).mean((2, 4))
            np.testing.assert_allclose(shares[..., 1], white, atol=1e-6)


def test_a_run_as_a_system(folder, tmp_path, capsys):
    run("--run-dir", "runs/latent")
    files = ["--out", str(tmp_path / "d.png"), "--npz", str(tmp_path / "d.npz")]
    sample_command(["runs/latent", "--num", "2", "--steps", "3", "--label", "1", "2", *files])
    drawn = np.load(tmp_path / "d.npz")["pictures"]
    system = load_latent_diffusion(Path("runs/latent"), steps=3)
    known = {"label": jnp.array([1, 2], jnp.int32)}
    found = jax.jit(LatentDiffusion.sample)(system, jax.random.key(0), known, jnp.arange(2))
    np.testing.assert_allclose(found, drawn, atol=1e-4)
    with pytest.raises(ValueError, match="load_latent_diffusion"):
        load_stage(Path("runs/latent"))
    with pytest.raises(ValueError, match="runs/kl holds no model of latents"):
        load_latent_diffusion(KL)
    assert "this model is of latents" in toy.fails(evaluate_command, ["runs/latent"], capsys)


def test_conditions_that_do_not_go_with_latents(folder, capsys):
    for flags, sentence in (
        (["--told", "hole"], "Inpainting is made of the pictures"),
        (["--told", "wide"], "the condition's pictures are of (8, 8) and the latents of (4, 4)"),
    ):
        argv = ["configs/latent.py", *flags, "--run-dir", "runs/never", *FEW]
        assert sentence in toy.fails(train_command, argv, capsys)


def test_another_codec_since_is_noticed(folder, tmp_path, capsys):
    shutil.copytree(KL, tmp_path / "kl")
    run("--codec", str(tmp_path / "kl"), "--run-dir", "runs/since")
    asked = ["runs/since", "--num", "1", "--steps", "2", "--out", str(tmp_path / "e.png")]
    sample_command(asked)
    shutil.rmtree(tmp_path / "kl")
    train_command(["configs/codec.py", "--run-dir", str(tmp_path / "kl"), *FEW[:-1], "3"])
    assert "which has changed since" in toy.fails(sample_command, asked, capsys)
    with pytest.raises(ValueError, match="which has changed since"):
        load_latent_diffusion(Path("runs/since"))


def test_the_recipe_of_the_docs(folder, tmp_path):
    """For one's own data, in a file of one's own."""
    blocks = (ROOT / "docs" / "latent.md").read_text().split("```python\n")[1:]
    text = next(block.split("```")[0] for block in blocks if "def recipe" in block)
    (folder / "mine.py").write_text(text)
    flags = [
        "--codec",
        "runs/kl",
        "--channels",
        "32",
        "--batch-size",
        "4",
        "--run-dir",
        "runs/mine",
    ]
    train_command(["mine.py", *flags, *FEW])
    out = ["--out", str(tmp_path / "a.png"), "--npz", str(tmp_path / "a.npz")]
    asked = ["runs/mine", "--recipe", "mine.py", "--label", "3", "--num", "2", "--steps", "2"]
    sample_command([*asked, "--batch-size", "2", *out])
    assert np.load(tmp_path / "a.npz")["pictures"].shape == (2, 8, 8, 1)
