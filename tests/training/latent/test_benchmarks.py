"""What the benchmarks of codecs and of what models their latents do, on runs of two steps."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax.data import digits
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.latents import codec_params
from diffusion_jax.training.needs import identity
from tests.training.latent.conftest import FEW, ROOT

KL, VAE = Path("runs/kl"), Path("runs/vae")


@pytest.fixture
def script(monkeypatch):
    """A benchmark's names, of which some may be replaced."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name, **replaced):
        found = runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))
        for replacing, value in replaced.items():
            monkeypatch.setitem(found["main"].__globals__, replacing, value)
        return found

    return load


@pytest.fixture(scope="module")
def vae(folder):
    train_command(["configs/codec.py", "--kind", "vae_mnist", "--run-dir", str(VAE), *FEW])
    return VAE


def first_columns(judge):
    """A judge that sees four pixels, and levels of 8 bits alone."""

    def features(pictures):
        levels = (pictures + 1) * 127.5
        np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
        return pictures[:, 4, 2:6, 0]

    return features


def test_codec_quality(script, tmp_path):
    main = script("codec_quality", features_of=first_columns)["main"]
    main(KL, judge=KL, count=40, out=tmp_path)
    said = json.loads((tmp_path / "codec.json").read_text())
    assert said["judge"] == said["codec"] == identity(KL)
    found = said["numbers"]
    assert found["pictures"] == 40 and found["numbers a picture"] == 32
    # two halves of one distribution are nearer than what two steps have taught the codec to draw
    assert 0 < found["of as many training pictures"] < found["Frechet distance"]
    assert (tmp_path / "codec.png").is_file()


def test_codec_quality_of_a_vae(script, vae, tmp_path):
    script("codec_quality")["main"](vae, count=40, out=tmp_path)
    found = json.loads((tmp_path / "codec.json").read_text())["numbers"]
    np.testing.assert_allclose(found["bound"], found["distortion"] + found["rate"], rtol=1e-5)
    assert found["latents"] == 3


def test_vae_traversals(script, vae, tmp_path, capsys):
    script("vae_traversals")["main"]((vae, vae), steps=3, count=8, out=tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()
    assert capsys.readouterr().out.count("nats of each latent") == 2


def test_disentanglement(script, vae, capsys):
    def factors_of(record):
        return tuple(int(record["label"]) % k for k in (2, 3, 4, 5, 10))

    script("disentanglement", factors_of=factors_of)["main"]((vae,), count=100, bins=4)
    said = capsys.readouterr().out
    assert said.count("MIG") == 2 and said.count("told by each latent") == 10


@pytest.mark.parametrize(("kind", "codec"), [("latent", "kl"), ("codes", "vq")])
def test_latent_quality_draws_and_counts(script, kind, codec):
    found = script("latent_quality")
    train_command([f"configs/{kind}.py", "--run-dir", f"runs/bench_{kind}", *FEW])
    model = found["load_model"](Path(f"runs/bench_{kind}"), steps=2, seed=0, data_dir=None)
    assert model.codec == Path("runs") / codec
    known = {"label": np.array([1, 2, 3], np.int32)}
    asked = []

    def draw(index, told):
        asked.append(index.tolist())
        return model.draw(index, told)

    pictures, rate = found["drawn"](model._replace(draw=draw), known, 3, 2)
    assert asked == [[0, 1], [0, 1], [2, 3]]  # the first time untimed
    assert pictures.shape == (3, *digits("test").image_shape) and rate > 0
    costs = found["costs"](model)
    sizes = [x.size for x in jax.tree.leaves([model.params, codec_params(model.codec)])]
    np.testing.assert_allclose(costs["parameters, M"], sum(sizes) / 1e6)
    assert costs["all training, PFLOP"] > costs["training, PFLOP"] > 0
    assert costs["steps"] == 2
