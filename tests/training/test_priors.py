"""unCLIP's priors as tasks, on a small CLIP of shapes."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import from_linen
from diffusion_jax.systems import Told, Unclip
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.embeddings import embeddings, load_clip_task
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.priors import coded, fitted
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.runs import load_experiment
from diffusion_jax.training.stages import load_prior, load_stage, stage_of
from tests.training import toy

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--log-every", "2", "--sample-every", "0", "--steps", "2"]


# shapes_clip on 48 pictures: what it says of 40,000 would take minutes.
TINY = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import subset
from diffusion_jax.training.recipes import load_recipe


def recipe(steps: int = 2):
    task = load_recipe(Path("configs/shapes_clip.py"))(steps, batch_size=8, width=32, layers=1)
    few = lambda split, data_dir: subset(task.source(split, data_dir), range(48))
    return dataclasses.replace(task, source=few)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the recipes and a run of a CLIP."""
    folder = tmp_path_factory.mktemp("unclip")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        (folder / "configs" / path.name).symlink_to(path)
    (folder / "configs" / "tiny.py").write_text(TINY)
    before = os.getcwd()
    os.chdir(folder)
    train_command(["configs/tiny.py", "--run-dir", "runs/clip", *FEW])
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def small(folder):
    """What the CLIP says of its pictures."""
    return embeddings(Path("runs/clip"), "train", None)


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


def test_a_chain_of_runs_draws_pictures_of_prompts(small, folder):
    """A prior as train.py leaves it and a decoder, from prompts to pictures."""
    text = load_clip_task(Path("runs/clip")).clip.text
    flags = f"--clip runs/clip --batch-size 8 --features {text.features} --width 32 --layers 1"
    flags += f" --vocabulary {text.vocabulary} --length {text.length} --run-dir runs/prior"
    few = [*FEW, "--codes", "4", "--buckets", "8", "--alignments", "4"]
    train_command(["configs/emoji_code_prior.py", *flags.split(), *few])
    with pytest.raises(ValueError, match="draws no pictures"):
        load_experiment(Path("runs/prior"))

    decoder = decoder_recipe(text)
    record = decoder.source("train", None)[3]
    np.testing.assert_array_equal(record["image_embedding"], small.images[3])
    np.testing.assert_array_equal(record["tokens"], small.tokens[3])
    decoder = dataclasses.replace(decoder, model=from_linen(toy.Tiny(4)))
    drawing = stage_of(decoder, decoder.init_params(jax.random.key(0)), steps=2)
    unclip = Unclip(load_prior(Path("runs/prior")), drawing, text.length)
    told = Told(jnp.asarray(small.tokens[:3, 0]), jnp.asarray(small.texts[:3, 0]))
    sample = jax.jit(Unclip.sample)
    three = sample(unclip, jax.random.key(0), told, jnp.arange(3))
    assert three.shape == (3, 16, 16, 3) and np.isfinite(three).all() and three.std() > 0.1
    turned = jax.tree.map(lambda x: x[::-1], told)
    again = sample(unclip, jax.random.key(0), turned, jnp.arange(3)[::-1])
    np.testing.assert_allclose(again, three[::-1], atol=1e-4)


def decoder_recipe(text):
    return load_recipe(Path("configs/emoji_decoder.py"))(
        clip=Path("runs/clip"), steps=2, batch_size=8, size=16, factor=1, channels=8,
        features=text.features, vocabulary=text.vocabulary, length=text.length,
    )  # fmt: skip


def test_the_decoders_own_network_and_loss(small):
    """Traced, not run: what they are made of takes a minute to compile."""
    task = decoder_recipe(load_clip_task(Path("runs/clip")).clip.text)

    def both(key):
        params, batch = task.init_params(key), task.blank(8)
        denoiser = task.denoiser(params, task.conditioning.blank((8, 16, 16, 3)), 2.0)
        return task.loss()(params, (), key, batch)[0], denoiser(batch["image"], jnp.ones(8)).x0

    loss, x0 = jax.eval_shape(both, jax.random.key(0))
    assert loss.shape == () and x0.shape == (8, 16, 16, 3)


def test_runs_of_other_things_are_refused(folder):
    with pytest.raises(ValueError, match="holds no prior"):
        load_prior(Path("runs/clip"))
    with pytest.raises(ValueError, match="holds no diffusion model"):
        load_stage(Path("runs/clip"))
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        load_prior(Path("runs/nothing"))
