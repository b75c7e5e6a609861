"""Recipes train (TFDS sets' on noise), and their pictures don't depend on the batch around them.

The network is a small one in place of the recipe's: what differs among them is the rest.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.data import digits, from_arrays
from diffusion_jax.data.augment import Patch
from diffusion_jax.models import digits_classifier, from_linen
from diffusion_jax.training import terminals
from diffusion_jax.training.experiment import denoising
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.sampling import sample_batches, usual_known
from diffusion_jax.training.sharding import data_mesh
from tests.training import toy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted([*CONFIGS.glob("digits*.py"), *CONFIGS.glob("shapes*.py")])
RECIPES.remove(CONFIGS / "shapes_clip.py")  # test_contrastive.py's

CASES = [(path.stem, {"levels": 4} if path.stem == "digits_heat" else {}) for path in RECIPES]
CASES += [("digits_soft", {"corruption": "mask"})]
CASES += [("digits_cold", {"degradation": how}) for how in ("pixelation", "snow")]

PREPARED = [("mnist", {}), ("fashion_mnist", {}), ("fashion_mnist_dit", {})]
PREPARED += [("cifar10", {"optimizer": "adafactor"}), ("emoji_upsampler", {"side": 16})]
PREPARED += [("mnist_cascade", {"stage": stage}) for stage in ("small", "large")]


def noise(shape, split, data_dir=None):
    """Pictures of ten classes in place of a set that somebody has to prepare."""
    images = np.random.default_rng(0).integers(0, 256, (20, *shape))
    return from_arrays("noise", images.astype(np.uint8), np.arange(20) % 10, classes=10)


@pytest.mark.parametrize("stem, arguments", CASES + PREPARED, ids=str)
def test_two_steps_and_a_picture(stem, arguments, tmp_path):
    recipe = load_recipe(CONFIGS / f"{stem}.py")(steps=2, batch_size=8, **arguments)
    check_own_network(recipe)
    experiment = dataclasses.replace(recipe, model=from_linen(toy.Tiny(4)))
    if (stem, arguments) in PREPARED:
        height, width, channels = recipe.image_shape
        more = 8 if isinstance(recipe.augment, Patch) else 0  # of which it takes a part
        source = functools.partial(noise, (height + more, width + more, channels))
        experiment = dataclasses.replace(experiment, source=source)
    options = Options(log_every=1, checkpoint_every=2, sample_every=0)
    state = train(experiment, options, tmp_path, show=False)

    told = usual_known(experiment, 3)

    def pictures(chosen, first):
        return np.concatenate(
            list(
                sample_batches(
                    experiment, state.ema, experiment.sampler,
                    {name: value[chosen] for name, value in told.items()},
                    steps=recipe.sample_steps or 4, guidance=1.0, seed=0, batch_size=2,
                    mesh=data_mesh(1), first=first,
                )
            )
        )  # fmt: skip

    three = pictures([0, 1, 2], 0)
    assert three.shape == (3, *recipe.image_shape) and np.all(np.isfinite(three))
    np.testing.assert_allclose(pictures([1, 2], 1), three[1:], atol=1e-6)


def check_own_network(recipe):
    """Traces the recipe's own network through its loss and its denoiser; nothing is computed."""
    shape = (8, *recipe.image_shape)

    def both(key):
        params = recipe.init_params(key)
        blank = recipe.conditioning.blank(shape)
        batch = {"image": jnp.zeros(shape), **blank}
        loss, _ = recipe.loss()(params, recipe.init_extra(), key, batch)
        network, _ = recipe.parts(params)
        return loss, network(batch["image"], jnp.ones(8), recipe.conditioning.condition(blank))

    loss, y = jax.eval_shape(both, jax.random.key(0))
    assert loss.shape == () and y.shape == shape


def test_a_classifier_trains_and_draws_nothing(tmp_path):
    recipe = load_recipe(CONFIGS / "fashion_mnist_classifier.py")(steps=2, batch_size=8)
    logits = jax.eval_shape(
        lambda key: recipe.model.apply(
            recipe.init_params(key), jnp.zeros((2, 28, 28, 1)), jnp.ones(2), dj.Condition()
        ),
        jax.random.key(0),
    )
    assert logits.shape == (2, 10)
    digits_task = dataclasses.replace(
        recipe, source=lambda split, data_dir: digits(split), image_shape=(8, 8, 1),
        model=from_linen(digits_classifier(channels=8)),
    )  # fmt: skip
    options = Options(log_every=1, checkpoint_every=2, sample_every=1)
    state = train(digits_task, options, tmp_path, show=False)
    assert int(state.step) == 2 and not (tmp_path / "samples").exists()


INDEX = jnp.arange(200)
LABEL = INDEX % 10


def test_chosen_pictures_have_the_label_and_depend_on_their_number_alone():
    pictures = terminals.read_pictures(digits(), 500)
    assert len(pictures.label) == 500
    numbers = pictures._replace(image=pictures.label[:, None] + jnp.linspace(0, 0.5, 500)[:, None])
    chosen = terminals.choose(numbers, jax.random.key(0), INDEX, LABEL)[:, 0]
    np.testing.assert_array_equal(jnp.floor(chosen), LABEL)
    assert len(np.unique(chosen)) > 100
    part = terminals.choose(numbers, jax.random.key(0), INDEX[50:60], LABEL[50:60])[:, 0]
    np.testing.assert_array_equal(part, chosen[50:60])
    anything = terminals.choose(numbers, jax.random.key(0), INDEX, jnp.full_like(LABEL, -1))
    assert len(np.unique(np.floor(anything))) == 10


def test_fitted_colours_have_the_colours_of_the_data():
    rng = np.random.default_rng(0)
    colours = rng.multivariate_normal(
        [90, 120, 150], [[400, 300, 0], [300, 400, 0], [0, 0, 100]], 500
    )
    images = np.broadcast_to(colours[:, None, None, :].clip(0, 255), (500, 2, 2, 3))
    source = from_arrays("colours", images.astype(np.uint8))
    terminal = terminals.FittedColours(components=2)
    arrays = terminal.prepare(lambda: source)
    many = jnp.arange(2000)
    process = dj.Cold(dj.GaussianBlur())
    x, same = terminal.draw(arrays, process, jax.random.key(0), many, many, (2, 2, 3))
    assert same is process
    drawn = (np.asarray(x).mean((1, 2)) + 1) * 127.5
    np.testing.assert_allclose(drawn.mean(0), colours.mean(0), atol=3)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(colours.T), atol=60)
    assert 0.001 < np.std(np.asarray(x), axis=(1, 2)).mean() < 0.003


def test_corrupted_data_start_where_the_process_ends():
    terminal, process = terminals.FromData(count=20), dj.heat(sigma_max=3.0, noise=0.0001)
    arrays = terminal.prepare(digits)
    draw = INDEX[:3], LABEL[:3], (8, 8, 1)
    x, same = terminal.draw(arrays, process, jax.random.key(0), *draw)
    x0 = process.encode(terminals.choose(arrays, jax.random.key(0), *draw[:2]))
    assert same is process
    np.testing.assert_allclose(x, process.scales(jnp.ones(3), x0)[0] * x0, atol=1e-3)


def test_another_picture_starts_as_itself():
    terminal, process = terminals.AnotherPicture(count=20), dj.Gaussian(dj.Rectified())
    arrays = terminal.prepare(digits)
    x, _ = terminal.draw(arrays, process, jax.random.key(0), INDEX[:9], LABEL[:9], (8, 8, 1))
    pictures = {p.tobytes() for p in np.asarray(arrays.image)}
    assert all(p.tobytes() in pictures for p in np.asarray(x))


@pytest.mark.parametrize("terminal", [terminals.FromData(), terminals.FittedColours()])
def test_a_random_degradation_needs_a_terminal_that_tells_its_noise(terminal):
    with pytest.raises(ValueError, match=r"use Degraded\(\)"):
        terminal.check(dj.Cold(dj.Snow()))


def test_random_degradations_know_their_noise():
    terminal = terminals.Degraded(count=20)
    arrays = terminal.prepare(digits)
    x, process = terminal.draw(
        arrays, dj.Cold(dj.Snow()), jax.random.key(0), INDEX[:3], LABEL[:3], (8, 8, 1)
    )
    x0 = terminals.choose(arrays, jax.random.key(0), INDEX[:3], LABEL[:3])
    np.testing.assert_array_equal(x, process.corrupt(x0, process.noise, jnp.ones(3)))
    with pytest.raises(ValueError, match=r"isn't Cold"):
        terminal.check(dj.Gaussian(dj.Cosine()))


def test_samplers_that_do_not_go_with_a_process_are_refused():
    experiment = load_recipe(CONFIGS / "digits_cold.py")()
    with pytest.raises(ValueError, match="no alpha and sigma for the denoising loss"):
        dataclasses.replace(experiment, make_loss=denoising).loss()


def test_a_trained_schedule_is_the_one_that_samples():
    """The process is built from the parameters at hand, not from those that training began with."""
    recipe = load_recipe(CONFIGS / "digits_vdm.py")()
    experiment = dataclasses.replace(recipe, model=from_linen(toy.Tiny(4)))
    network, process = experiment.parts(experiment.init_params(jax.random.key(0)))
    moved = dj.init_learned(jax.random.key(0), gamma_0=-3.0, gamma_1=5.0)
    _, other = experiment.parts({"network": network, "schedule": moved})
    start = jnp.full(1, 1e-6)
    np.testing.assert_allclose(process.log_snr(start), 11.0, rtol=1e-3)
    np.testing.assert_allclose(other.log_snr(start), 3.0, rtol=1e-3)
