"""CLIP and supervised towers as tasks: their recipes train, resume, and find their encoders."""

import dataclasses
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import Gaussian, Rectified
from diffusion_jax.data import caption_alone, captioned, from_arrays, shapes
from diffusion_jax.losses import sigmoid_objective
from diffusion_jax.models.clip import CLIP, TextTransformer, VisionTransformer
from diffusion_jax.training.contrastive import Contrastive, image_encoder, text_encoder
from diffusion_jax.training.loop import Options, check_task, train
from diffusion_jax.training.recipes import Record, load_recipe
from diffusion_jax.training.runs import load_params
from tests.training import toy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OPTIONS = Options(log_every=1, checkpoint_every=1, sample_every=0)
EMOJI = Path(os.environ.get("DIFFUSION_JAX_DATA", "")) / "emoji64"
needs_emoji = pytest.mark.skipif(
    "DIFFUSION_JAX_DATA" not in os.environ or not EMOJI.is_dir(),
    reason="needs the prepared set emoji64 in $DIFFUSION_JAX_DATA",
)


@functools.cache
def shapes_clip(steps: int = 2, **arguments) -> Contrastive:
    return load_recipe(CONFIGS / "shapes_clip.py")(
        steps=steps, batch_size=8, width=32, layers=1, **arguments
    )


def test_encoders_answer_unit_rows_whatever_the_batch():
    task = shapes_clip()
    params = jax.jit(task.init_params)(jax.random.key(0))
    source = shapes("test", 16)
    pictures = np.stack([source[i]["image"] for i in range(7)]) / np.float32(127.5) - 1
    texts = [source[i]["caption"] for i in range(7)]
    images, words = image_encoder(task, params, 4)(pictures), text_encoder(task, params)(texts)
    for rows in (images, words):
        assert rows.shape == (7, 32)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(images, image_encoder(task, params, 7)(pictures), atol=1e-5)


def test_a_step_takes_one_of_the_texts_by_the_examples_own_key():
    """What an example is told depends on its number, not on the batch around it."""
    source = shapes("train", 16)

    def texts(record):
        return [record["caption"], "a red cube", "a blue ball", "a cyan cone"]

    task = shapes_clip()
    told = captioned(source, task.tokenizer(None), texts, 4)
    task = dataclasses.replace(task, texts=4)
    params = jax.jit(task.init_params)(jax.random.key(0))
    records = [told[i] for i in range(32)]
    batch = {
        "image": jnp.stack([jnp.asarray(r["image"]) / 127.5 - 1 for r in records]),
        "tokens": jnp.stack([r["tokens"] for r in records]),
    }
    few = jax.tree.map(lambda x: x[:8], batch)
    embed = jax.jit(task.embed)
    many, alone = embed(params, jax.random.key(1), batch), embed(params, jax.random.key(1), few)
    np.testing.assert_allclose(many.text[:8], alone.text, atol=1e-5)
    rows = text_encoder(task, params)(texts(records[0])[1:])
    shown = (np.asarray(many.text) @ np.asarray(rows).T > 1 - 1e-5).sum(0)
    assert (shown >= 2).all()  # each of the three others, of 32 examples


def test_noised_pictures_are_noise_at_t_1():
    task = dataclasses.replace(
        shapes_clip(), process=Gaussian(Rectified()), times=lambda key, index, b: jnp.ones(b)
    )
    params = jax.jit(task.init_params)(jax.random.key(0))
    tokens = jnp.zeros((8, 1, task.length), jnp.int32)

    def images(value):
        batch = {"image": jnp.full((8, 16, 16, 3), value), "tokens": tokens}
        return task.embed(params, jax.random.key(0), batch).image

    np.testing.assert_allclose(images(1.0), images(-1.0), atol=1e-5)


def test_training_starts_from_another_run(tmp_path):
    task = shapes_clip()
    assert int(train(task, OPTIONS, tmp_path, show=False).step) == 2
    Record.of(CONFIGS / "shapes_clip.py", dict(
        steps=2, batch_size=8, seed=0, learning_rate=1e-3, size=16, width=32, layers=1,
        noised=False, start=None, ema_decay=0.99,
    )).save(tmp_path)  # fmt: skip
    again = shapes_clip(noised=True, start=tmp_path)
    assert toy.equal(again.init_params(jax.random.key(7)), load_params(task, tmp_path))


def test_paths_among_a_recipes_arguments_come_back(tmp_path, monkeypatch):
    """A run that names another run, or a vocabulary, is rebuilt and resumed like any."""
    arguments = {"size": "RN50", "vocabulary": Path("some/vocabulary.txt.gz")}
    record = Record.of(Path("configs/clip.py"), arguments)
    record.save(tmp_path)
    monkeypatch.chdir(CONFIGS.parent)
    assert Record.load(tmp_path).arguments == record.arguments
    told = Record.load(tmp_path).rebuild().tokenizer.args[0]
    assert told == Path("some/vocabulary.txt.gz") and isinstance(told, Path)


def test_the_sigmoid_loss_has_a_bias_to_learn():
    text = TextTransformer(8, 30, 18, 32, layers=1, heads=1, end=2)
    image = VisionTransformer(8, 32, 1, 1, patch=4, image_size=16)
    task = dataclasses.replace(
        shapes_clip(), clip=CLIP(image, text, bias=True), objective=sigmoid_objective
    )
    params = task.init_params(jax.random.key(0))
    source = shapes("train", 16)
    told = captioned(source, task.tokenizer(None), caption_alone, 1)
    batch = {
        "image": jnp.stack([jnp.asarray(told[i]["image"]) / 127.5 - 1 for i in range(8)]),
        "tokens": jnp.stack([told[i]["tokens"] for i in range(8)]),
    }
    gradient = jax.grad(lambda p: task.loss()(p, (), jax.random.key(0), batch)[0])(params)
    assert abs(gradient["bias"]) > 0


@needs_emoji
@pytest.mark.parametrize("stem", ["emoji64_clip", "emoji64_groups"])
@pytest.mark.parametrize("tower", ["resnet", "vit"])
def test_emoji_recipes_take_a_step(stem, tower, tmp_path):
    task = load_recipe(CONFIGS / f"{stem}.py")(steps=1, batch_size=4, tower=tower)
    few = dataclasses.replace(task, source=functools.partial(few_of, task))
    state = train(few, OPTIONS, tmp_path, show=False)
    assert int(state.step) == 1


def few_of(task, split, data_dir):
    """The recipe's own source, without reading all of it: sources are lazy."""
    source = task.source("test" if task.features else "train", data_dir)
    assert source.image_shape == (64, 64, 3)
    return source


def test_a_recipe_of_a_published_size_needs_its_vocabulary_and_checks():
    task = load_recipe(CONFIGS / "clip.py")(size="ViT-B/32", batch_size=8)
    check_task(task, OPTIONS)
    shapes_of = jax.eval_shape(task.init_params, jax.random.key(0))
    count = sum(x.size for x in jax.tree.leaves(shapes_of))
    assert count == 151_277_313  # the published ViT-B/32
    with pytest.raises(ValueError, match="--vocabulary"):
        task.tokenizer(None)


def test_pictures_of_another_size_are_refused():
    task = shapes_clip()
    wrong = from_arrays("wrong", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"pictures of \(8, 8, 3\)"):
        task.check_source(wrong)
