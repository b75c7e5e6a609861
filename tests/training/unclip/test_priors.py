"""unCLIP's priors as tasks, on a small CLIP of shapes."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.training import embeddings as stored
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.embeddings import embeddings, load_clip_task
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.needs import check_pinned, pin, pinned
from diffusion_jax.training.priors import coded, fitted
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.stages import load_prior, load_stage


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
    train_command(["configs/tiny.py", "--run-dir", "runs/other", "--seed", "1", "--steps", "2"])
    shutil.copytree("runs/other/checkpoints", "runs/old/checkpoints")
    with pytest.raises(ValueError, match="at step 2, which has changed since"):
        pin(tmp_path, [Path("runs/old")])
    copy = tmp_path / "copy"
    shutil.copytree("runs/clip", copy)  # as where runs were taken to another machine
    check_pinned(tmp_path, [copy])
    shutil.move("runs/old", "runs/gone")
    check_pinned(tmp_path, [copy])
    with pytest.raises(FileNotFoundError, match="there is no such folder any more"):
        check_pinned(tmp_path, [Path("runs/old")])
    shutil.move("runs/gone", "runs/old")
    changed = embeddings(Path("runs/old"), "train", None)
    assert np.abs(changed.images - small.images).max() > 0.01
    for run, reason in (('"a"', "'step'"), ("3", "expected str")):
        (tmp_path / "needs.json").write_text(f'[{{"run": {run}}}]')
        with pytest.raises(ValueError, match=rf"needs.json is damaged: {reason}"):
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
    said = r"ids up to 10\d\d; the network is for 32 features"
    with pytest.raises(ValueError, match=said):
        large = small._replace(tokens=small.tokens + 1000)
        stored.check_sizes(Path("runs/clip"), large, 32, 1000, small.tokens.shape[2])
    for features, length in ((64, small.tokens.shape[2]), (32, 100)):
        with pytest.raises(ValueError, match="has embeddings of 32 features"):
            stored.check_sizes(Path("runs/clip"), small, features, 5000, length)


def test_codes_of_another_number_are_refused(small):
    task = prior("emoji_code_prior", codes=8, buckets=16, alignments=4)
    source = prior("emoji_code_prior", codes=4, buckets=16, alignments=4).source("train", None)
    with pytest.raises(ValueError, match=r"codes of shape \[4\].* for 8"):
        task.check_source(source)


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
