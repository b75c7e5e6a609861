"""unCLIP's priors as tasks, on a small CLIP of shapes."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.data import subset
from diffusion_jax.training import embeddings as stored
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.embeddings import embeddings, load_clip_task
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.priors import coded, fitted
from diffusion_jax.training.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--log-every", "2", "--sample-every", "0", "--steps", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the recipes and a run of a CLIP."""
    folder = tmp_path_factory.mktemp("unclip")
    (folder / "configs").symlink_to(ROOT / "configs")
    before = os.getcwd()
    os.chdir(folder)
    flags = "--batch-size 8 --width 32 --layers 1 --run-dir runs/clip"
    train_command(["configs/shapes_clip.py", *flags.split(), *FEW])
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def small(folder):
    """What the CLIP says of a few shapes; training on all of them would take minutes."""
    patch = pytest.MonkeyPatch()
    embed = stored.embed
    patch.setattr(
        stored, "embed", lambda task, params, source: embed(task, params, subset(source, range(48)))
    )
    yield embeddings(Path("runs/clip"), "train", None)
    patch.undo()


def test_embeddings_are_unit_rows_and_kept(small, folder):
    assert np.allclose(np.linalg.norm(small.images, axis=-1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(small.texts, axis=-1), 1, atol=1e-5)
    file = folder / "runs" / "clip" / "embeddings" / "train_2.npz"
    with np.load(file) as arrays:
        np.testing.assert_array_equal(arrays["images"], small.images)


def test_codes_stand_for_embeddings(small):
    found = fitted(Path("runs/clip"), None, 8, 64, 4)
    source = coded("shapes", small, found)
    record = source[5]
    back = found.codes.decode(jnp.asarray(record["codes"])[None])[0]
    root = small.images.shape[1] ** 0.5
    np.testing.assert_allclose(record["image"], small.images[5] * root, rtol=1e-6)
    np.testing.assert_allclose(back / root, small.images[5], atol=0.02)
    counts = np.bincount([source[i]["alignment"][0] for i in range(48)], minlength=4)
    np.testing.assert_allclose(counts, 12, atol=1)


def prior(recipe, **more):
    text = load_clip_task(Path("runs/clip")).clip.text
    return load_recipe(Path("configs") / f"{recipe}.py")(
        clip=Path("runs/clip"), steps=60, batch_size=16, width=32, layers=1, learning_rate=3e-3,
        features=text.features, vocabulary=text.vocabulary, length=text.length, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "more"),
    [("emoji_prior", {}), ("emoji_code_prior", {"codes": 8, "buckets": 16, "alignments": 4})],
)
def test_a_prior_learns(small, recipe, more, tmp_path):
    task = prior(recipe, **more)
    state = train(task, Options(log_every=30, checkpoint_every=60), tmp_path)
    source = task.source("train", None)
    records = [source[i] for i in range(48)]
    batch = {k: np.stack([r[k] for r in records]) for k in ("image", *task.features)}
    loss = jax.jit(task.loss())
    first = task.init_params(jax.random.key(0))
    before, after = (
        np.mean([loss(params, (), jax.random.key(i), batch)[0] for i in range(4)])
        for params in (first, state.params)
    )
    assert after < 0.8 * before


def test_codes_of_another_number_are_refused(small):
    task = prior("emoji_code_prior", codes=8, buckets=16, alignments=4)
    source = prior("emoji_code_prior", codes=4, buckets=16, alignments=4).source("train", None)
    with pytest.raises(ValueError, match=r"codes of shape \[4\].* for 8"):
        task.check_source(source)
