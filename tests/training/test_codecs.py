"""Codecs as tasks: their recipes train, draw and come back; two players share a step."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.data import digits
from diffusion_jax.models.autoencoder import KLAutoencoder, VQAutoencoder
from diffusion_jax.models.classifier import Classified
from diffusion_jax.models.clip_resnet import ModifiedResNet
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.models.features import feature_maps
from diffusion_jax.models.vae import VAE
from diffusion_jax.training.codecs import load_codec, psnr, reconstruct
from diffusion_jax.training.loop import Options, check_task, train
from diffusion_jax.training.optimizers import adam, adam_of_players
from diffusion_jax.training.picture_codecs import Judge, judge_of
from diffusion_jax.training.recipes import Record, load_recipe
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.sharding import data_mesh
from diffusion_jax.training.supervised import Supervised
from tests.training import toy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OPTIONS = Options(log_every=1, checkpoint_every=2, sample_every=2)
TINY = dict(
    out_channels=1, channels=4, multipliers=(1, 2), blocks=1, middle_attention=False, groups=2
)
SMALL = {
    "vae_mnist": VAE((8, 8, 1), 3, (4, 4), 8),
    "kl_emoji64": KLAutoencoder(2, **TINY),
    "vq_emoji64": VQAutoencoder(8, 3, **TINY),
}
EYES = PatchDiscriminator(4, 1, groups=2)


@functools.cache
def judge_params():
    with jax.ensure_compile_time_eval():
        drawn = EYES.init(jax.random.key(3), jnp.zeros((1, 8, 8, 1)))["params"]
        return jax.tree.map(np.asarray, drawn)


JUDGE = Judge(feature_maps(EYES, ("conv0",)), judge_params)  # a discriminator's first layer


def small(stem: str, **arguments):
    """A recipe on digits, with a network of hundreds of parameters."""
    task = load_recipe(CONFIGS / f"{stem}.py")(steps=2, batch_size=8, **arguments)
    task = dataclasses.replace(
        task,
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        network=SMALL[stem],
    )
    if stem == "vae_mnist":
        return task
    return dataclasses.replace(task, judge=JUDGE, player=task.player._replace(network=EYES))


@pytest.mark.parametrize("stem", SMALL)
def test_two_steps_a_picture_and_back(stem, tmp_path):
    task = small(stem) if stem == "vae_mnist" else small(stem, start=1)
    task = dataclasses.replace(task, accumulate=2) if stem == "kl_emoji64" else task
    before = task.init_params(jax.random.key(task.seed))
    state = train(task, OPTIONS, tmp_path, show=False)
    for name in before:  # each player has moved
        moved = jax.tree.map(lambda a, b: np.any(a != b), before[name], state.params[name])
        assert np.mean(jax.tree.leaves(moved)) > 0.8, (name, moved)
    assert (tmp_path / "samples" / "step_0000002.png").is_file()
    if stem != "vae_mnist":
        assert int(state.extra.calls) == 2 * task.accumulate
        assert toy.equal(state.extra.judge, judge_params())  # nobody trains the judge

    params = load_params(task, tmp_path)
    assert toy.equal(params, state.ema)
    pictures = np.stack([digits("test")[i]["image"] for i in range(5)]) / np.float32(127.5) - 1
    again = reconstruct(task, params, pictures, data_mesh(1), batch_size=4)
    assert again.shape == pictures.shape and np.all(np.abs(again) <= 1)
    alone = task.decode(params, task.encode(params, jnp.asarray(pictures[4:])))
    np.testing.assert_allclose(again[4:], np.clip(alone, -1, 1), atol=1e-4)


def test_the_players_meet_after_whole_steps():
    """Of so many micro-batches each; until then the codec's value is all that is trained."""
    task = dataclasses.replace(small("kl_emoji64", start=1), accumulate=3)
    params = jax.jit(task.init_params)(jax.random.key(0))
    batch = {"image": jnp.zeros((2, 8, 8, 1))}
    loss, first = jax.jit(task.loss()), task.first_extra()

    def apart(calls):
        extra = first._replace(calls=jnp.int32(calls))
        total, (metrics, _) = loss(params, extra, jax.random.key(1), batch)
        return abs(float(total - metrics["loss"]))

    assert apart(2) == 0 < apart(3)


def test_a_discriminator_that_never_joins_is_refused():
    for stem in ("kl_emoji64", "vq_emoji64"):
        small(stem, start=1).check()
        with pytest.raises(ValueError, match="with --steps 2 it never joins; name --start"):
            small(stem, start=2).check()
    load_recipe(CONFIGS / "kl_emoji64.py")(steps=2, adversarial=0.0).check()


def test_codes_are_pictures_too():
    task = small("vq_emoji64")
    params = jax.jit(task.init_params)(jax.random.key(0))
    x = jnp.asarray(digits("test")[0]["image"])[None] / 127.5 - 1
    codes = task.codes(params, x)
    assert codes.shape == (1, 4, 4) and codes.dtype == jnp.int32
    decoded = task.decode(params, task.encode(params, x))
    np.testing.assert_allclose(task.decode_codes(params, codes), decoded, atol=1e-6)


def test_neither_player_slows_the_other():
    """One's gradient, however large, leaves the other's step as it was."""
    params = {"codec": jnp.ones(3), "discriminator": jnp.ones(2)}
    optimizer = adam_of_players(optax.constant_schedule(1e-2), ratio=0.5)

    def step(size):
        state, steps = optimizer.init(params), []
        for small_one in (1e-3, 2e-3):
            grads = {"codec": jnp.full(3, small_one), "discriminator": jnp.full(2, size)}
            updates, state = optimizer.update(grads, state, params)
            steps.append(updates)
        return steps

    calm, wild = step(1e-3), step(1e6)
    assert toy.equal([u["codec"] for u in calm], [u["codec"] for u in wild])
    ratio = calm[0]["discriminator"][0] / calm[0]["codec"][0]
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-4)


def test_a_recipe_of_the_papers_sizes_checks():
    for factor, shape in (("4", (64, 64, 3)), ("8", (32, 32, 4))):
        task = load_recipe(CONFIGS / "kl_imagenet.py")(factor=factor)
        check_task(task, OPTIONS)
        shapes = jax.eval_shape(task.init_params, jax.random.key(0))
        x = jnp.zeros((1, 256, 256, 3))
        z = jax.eval_shape(task.encode, shapes, x)
        assert z.shape == (1, *shape) and task.latent_shape == shape


def test_what_is_no_codec_or_judge_is_refused(checkout):
    with pytest.raises(ValueError, match="holds no codec"):
        load_codec(Path("runs/toy"))
    with pytest.raises(ValueError, match="holds no residual tower"):
        judge_of(Path("runs/toy")).params()


def judge_recipe() -> Supervised:
    """A residual tower that reads digits; also found by the recipe that the test below writes."""
    tower = ModifiedResNet(8, (1,), 4, image_size=8, mean=(0.5,), std=(0.5,))
    return Supervised(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        network=Classified(tower, 10),
        learning_rate=optax.constant_schedule(1e-3),
        optimizer=adam,
        batch_size=8,
        steps=1,
    )


def test_a_trained_tower_judges(tmp_path, monkeypatch):
    """Its maps are of several layers, and a codec of it begins with its averaged parameters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tower.py").write_text(
        "from tests.training.test_codecs import judge_recipe as recipe\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    state = train(judge_recipe(), OPTIONS, run, show=False)
    Record.of(Path("configs/tower.py"), {}).save(run)
    judged = dataclasses.replace(small("kl_emoji64"), judge=judge_of(run))
    extra = jax.eval_shape(judged.first_extra)  # as the trainer plans
    extra = jax.jit(judged.first_extra)()
    assert toy.equal(extra.judge, state.ema["tower"])
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=-1)
    maps = judged.judge.maps(extra.judge, x)
    assert [m.shape[1:] for m in maps] == [(4, 4, 4), (2, 2, 16)]
    near, far = (judged.distance(extra.judge, x, x + d)[0] for d in (0.0, 0.3))
    assert near < 1e-6 < far


def test_a_run_of_a_codec_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    Record.of(Path("configs/vae_mnist.py"), {"beta": 4.0, "steps": 7}).save(tmp_path)
    task = load_codec(tmp_path)
    assert task.beta == 4.0 and task.steps == 7


def test_psnr_of_a_picture_is_its_own():
    x = jnp.zeros((2, 4, 4, 1))
    y = x.at[1].set(0.02)
    both = psnr(x, y)
    np.testing.assert_allclose(both[1], 40.0, rtol=1e-4)
    assert both[0] > 90
