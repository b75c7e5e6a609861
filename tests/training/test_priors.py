"""unCLIP's priors as tasks, on a small CLIP of shapes."""

import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.data import save_png
from diffusion_jax.training import embeddings as stored
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.embeddings import embeddings, load_clip_task
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.needs import check_pinned, pin, pinned
from diffusion_jax.training.priors import coded, fitted
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.sample_cli import sample_command
from diffusion_jax.training.stages import load_prior, load_stage
from tests.training import toy

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--log-every", "2", "--sample-every", "0", "--steps", "2"]


# shapes_clip on 48 pictures: what it says of 40,000 would take minutes.
TINY = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import subset
from diffusion_jax.training.recipes import load_recipe


def recipe(steps: int = 2, seed: int = 0):
    shapes_clip = load_recipe(Path("configs/shapes_clip.py"))
    task = shapes_clip(steps, batch_size=8, width=32, layers=1, seed=seed)
    few = lambda split, data_dir: subset(task.source(split, data_dir), range(48))
    return dataclasses.replace(task, source=few)
"""


# emoji_decoder with a network that compiles in a moment.
DECODER = """
import dataclasses
from pathlib import Path
from diffusion_jax.models import from_linen
from diffusion_jax.training.recipes import load_recipe
from tests.training import toy


def recipe(features: int, vocabulary: int, length: int, steps: int = 2):
    task = load_recipe(Path("configs/emoji_decoder.py"))(
        Path("runs/clip"), steps, 8, features=features, vocabulary=vocabulary, length=length,
        size=16, factor=1,
    )
    return dataclasses.replace(task, model=from_linen(toy.Tiny(4)))
"""


# shapes_upsampling, on patches, with such a network.
UPSAMPLER = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import patch
from diffusion_jax.models import from_linen
from diffusion_jax.training.recipes import load_recipe
from tests.training import toy


def recipe(steps: int = 2):
    task = load_recipe(Path("configs/shapes_upsampling.py"))(steps, 8, size=32)
    small = from_linen(toy.Tiny(4))
    return dataclasses.replace(task, model=small, image_shape=(16, 16, 3), augment=patch(16))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the recipes and a run of a CLIP."""
    folder = tmp_path_factory.mktemp("unclip")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        (folder / "configs" / path.name).symlink_to(path)
    (folder / "configs" / "tiny.py").write_text(TINY)
    (folder / "configs" / "decoder.py").write_text(DECODER)
    (folder / "configs" / "upsampler.py").write_text(UPSAMPLER)
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
    (file,) = (folder / "runs" / "clip" / "embeddings").glob("train_*.npz")
    written = file.stat().st_mtime_ns
    stored._embeddings.cache_clear()
    again = embeddings(Path("runs/clip"), "train", None)
    assert file.stat().st_mtime_ns == written and again.images is not small.images
    for one, other in zip(again, small, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_clip_is_noticed(folder, small, tmp_path):
    """Its embeddings are its own, and runs that learned from the old one are refused."""
    shutil.copytree("runs/clip", "runs/old")
    pin(tmp_path, [Path("runs/old")])
    check_pinned(tmp_path)
    pin(tmp_path, [Path("runs/old")])
    shutil.rmtree("runs/old/checkpoints")
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        check_pinned(tmp_path)
    train_command(["configs/tiny.py", "--run-dir", "runs/other", "--seed", "1", *FEW])
    shutil.copytree("runs/other/checkpoints", "runs/old/checkpoints")
    with pytest.raises(ValueError, match="at step 2, which has changed since"):
        pin(tmp_path, [Path("runs/old")])
    changed = embeddings(Path("runs/old"), "train", None)
    assert np.abs(changed.images - small.images).max() > 0.01
    (tmp_path / "needs.json").write_text('[{"run": 1}]')
    with pytest.raises(ValueError, match=r"needs.json is damaged: 'step'"):
        pinned(tmp_path)


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


def test_networks_of_other_sizes_are_refused(small):
    with pytest.raises(ValueError, match=r"ids up to 10\d\d; the network is for 32 features"):
        stored.check_sizes(Path("runs/clip"), small._replace(tokens=small.tokens + 1000), 32, 1000)
    with pytest.raises(ValueError, match="has embeddings of 32 features"):
        stored.check_sizes(Path("runs/clip"), small, 64, 5000)


def test_codes_of_another_number_are_refused(small):
    task = prior("emoji_code_prior", codes=8, buckets=16, alignments=4)
    source = prior("emoji_code_prior", codes=4, buckets=16, alignments=4).source("train", None)
    with pytest.raises(ValueError, match=r"codes of shape \[4\].* for 8"):
        task.check_source(source)


@pytest.fixture(scope="module")
def chain(small, folder):
    """Runs of a prior, a decoder and an upsampler as train.py leaves them."""
    text = load_clip_task(Path("runs/clip")).clip.text
    flags = f"--features {text.features} --vocabulary {text.vocabulary} --length {text.length}"
    own = "--clip runs/clip --batch-size 8 --width 32 --layers 1 --run-dir runs/prior"
    codes = "--codes 4 --buckets 8 --alignments 4"
    train_command(["configs/emoji_code_prior.py", *f"{flags} {own} {codes}".split(), *FEW])
    few = "--log-every 2 --sample-every 2 --steps 2"  # which draws held-out embeddings
    train_command(["configs/decoder.py", *flags.split(), *few.split()])
    train_command(["configs/upsampler.py", *few.split()])  # and held-out patches
    for name in ("decoder", "upsampler"):
        assert len(list(Path(f"runs/{name}/samples").iterdir())) == 1
    shutil.copytree("runs/prior", "runs/stranger")
    shutil.copytree("runs/clip", "runs/clip2")
    (Path("runs/stranger") / "needs.json").unlink()
    pin(Path("runs/stranger"), [Path("runs/clip2")])


def test_a_chain_of_runs_draws_pictures_of_prompts(chain):
    """From prompts to pictures by sample.py."""

    def sampled(num, name, *prompts):
        flags = f"runs/decoder --prior runs/prior --num {num} --steps 2 --batch-size 2"
        sample_command([*flags.split(), "--npz", name, "--prompt", *prompts])
        with np.load(name) as arrays:
            return arrays["pictures"], arrays["image_embedding"]

    three, z = sampled(3, "three.npz", "a red cube", "a blue ball")
    assert three.shape == (3, 16, 16, 3) and np.isfinite(three).all()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.abs(z[0] - z[2]).max() > 1e-3  # one prompt, two draws
    two, _ = sampled(2, "two.npz", "a red cube", "a blue ball")
    np.testing.assert_array_equal(two, three[:2])


def test_upsamplers_enlarge_what_was_drawn(chain):
    """Trained on patches, it draws whole pictures."""
    twice = "--upsampler runs/upsampler runs/upsampler"
    sample_command(f"runs/decoder --num 3 --steps 2 --batch-size 2 --npz a.npz {twice}".split())
    with np.load("a.npz") as arrays:
        assert arrays["pictures"].shape == (3, 64, 64, 3)
        assert np.isfinite(arrays["pictures"]).all()


@pytest.fixture(scope="module")
def picture(chain):
    """Two PNGs of the CLIP's size."""
    source = load_clip_task(Path("runs/clip")).source("train", None)
    for i, name in enumerate(("a.png", "b.png")):
        save_png(name, source[i]["image"])
    return source


def turned_into(num, flags):
    sample_command(f"runs/decoder --steps 8 --batch-size 4 --num {num} --npz t.npz {flags}".split())
    with np.load("t.npz") as arrays:
        return arrays["pictures"]


def test_variations_differ_and_depend_on_their_number(picture):
    many = turned_into(6, "--variations a.png")
    assert many.shape == (6, 16, 16, 3) and np.abs(many[0] - many[1]).max() > 0.05
    np.testing.assert_allclose(turned_into(2, "--variations a.png"), many[:2], atol=1e-6)


def test_interpolations_end_where_each_picture_leads(picture):
    there = turned_into(5, "--interpolate a.png b.png")
    back = turned_into(5, "--interpolate b.png a.png")
    np.testing.assert_allclose(there, back[::-1], atol=2e-3)
    steps = np.abs(np.diff(there, axis=0)).mean((1, 2, 3))
    assert steps.min() > 1e-3 and steps.max() < 0.9 * np.abs(there[0] - there[-1]).mean()


def test_edits_begin_with_the_picture_and_go_further_and_further(picture):
    flags = "--edit a.png --from cube --to ball"
    turns = turned_into(4, flags)
    start = turned_into(3, "--interpolate a.png b.png")[0]
    np.testing.assert_allclose(turns[0], start, atol=1e-5)
    away = [np.abs(turn - turns[0]).mean() for turn in turns[1:]]
    assert 0 < away[0] < away[1] < away[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("runs/decoder --variations a.png --edit a.png", "name one of them"),
        ("runs/decoder --edit a.png --from cube", "--edit needs two texts"),
        ("runs/decoder --to cube", "belong to --edit"),
        ("runs/decoder --variations a.png --guidance 2", "--guidance doesn't go with"),
        ("runs/decoder --variations a.png --prompt ball", "what the model is told doesn't go"),
        ("runs/decoder --variations samples.png", "--variations: samples.png has"),
        ("runs/upsampler --variations a.png", "reads no embeddings"),
    ],
)
def test_turns_that_are_refused(picture, capsys, flags, message):
    save_png("samples.png", np.zeros((8, 8, 3), np.uint8))
    assert message in toy.fails(sample_command, flags.split(), capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("runs/decoder --prior runs/prior", "--prior needs a text: --prompt"),
        ("runs/decoder --prior runs/clip --prompt ball", "holds no prior"),
        ("runs/decoder --prior runs/prior --prompt ball --label 1", "with --prompt alone"),
        ("runs/prior --prompt ball", "draws no pictures"),
        ("runs/decoder --prior-steps 3", "--prior-steps was given, but it belongs to --prior"),
        ("runs/decoder --prior runs/stranger --prompt ball", "weren't trained on the same CLIP"),
        ("runs/decoder --upsampler runs/nothing", "no recipe.json"),
        ("runs/decoder --upsampler runs/decoder", "enlarges no pictures of 3 channels"),
    ],
)
def test_sample_refuses(chain, capsys, flags, message):
    assert message in toy.fails(sample_command, flags.split(), capsys)


def test_a_decoders_records_are_its_clips(small):
    decoder = decoder_recipe(load_clip_task(Path("runs/clip")).clip.text)
    record = decoder.source("train", None)[3]
    np.testing.assert_array_equal(record["image_embedding"], small.images[3])
    np.testing.assert_array_equal(record["tokens"], small.tokens[3])


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
