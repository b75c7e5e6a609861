"""The recipes of codecs and of what models their latents and codes, as they stand in configs/."""

import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from diffusion_jax.data import COLOURS, SHAPES, scene, shapes
from diffusion_jax.training.recipes import Record, load_recipe
from tests.training.latent.conftest import ROOT

# Recipes are read before jax.distributed is initialised, which has to come before all else.
EARLY = """
import sys
from pathlib import Path
from jax._src import xla_bridge
from diffusion_jax.training.recipes import load_recipe
load_recipe(Path("configs/emoji_text.py"))(codec=Path(sys.argv[1]))
load_recipe(Path("configs/emoji_codes.py"))(codec=Path(sys.argv[2]))
assert not xla_bridge.backends_are_initialized()
"""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Folders of emoji's codecs, before their first step."""
    runs = {}
    for stem in ("kl_emoji64", "vq_emoji64"):
        runs[stem] = tmp_path_factory.mktemp(stem)
        Record.of(Path("configs") / f"{stem}.py", {}).save(runs[stem])
    return runs


def test_reading_a_recipe_asks_jax_for_no_device(untrained):
    asked = [sys.executable, "-c", EARLY, *map(str, untrained.values())]
    done = subprocess.run(asked, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("stem", "codec", "arguments"),
    [
        ("kl_emoji64", None, {}),
        ("vq_emoji64", None, {}),
        ("vae_mnist", None, {}),
        ("vae_shapes", None, {}),
        ("emoji_text", None, {}),
        ("emoji_text", "kl_emoji64", {}),
        ("emoji_text", "vq_emoji64", {}),
        ("emoji_codes", "vq_emoji64", {}),
        ("emoji_codes", "vq_emoji64", {"groups": True}),
    ],
)
def test_the_loss_of_a_recipes_own_network(untrained, stem, codec, arguments):
    """Traced; nothing is computed."""
    if codec:
        arguments = {**arguments, "codec": untrained[codec]}
    task = load_recipe(Path("configs") / f"{stem}.py")(batch_size=4, **arguments)
    task.check()

    def loss(key):
        return task.loss()(task.init_params(key), task.first_extra(), key, task.blank(4))[0]

    assert jax.eval_shape(loss, jax.random.key(0)).shape == ()


@pytest.mark.parametrize("stem", ["kl_emoji64", "vq_emoji64", "vae_mnist"])
def test_the_shape_of_latents_is_what_the_encoder_answers(stem):
    task = load_recipe(Path("configs") / f"{stem}.py")()

    def encoded(key):
        return task.encode(task.init_params(key), task.blank(3)["image"])

    assert jax.eval_shape(encoded, jax.random.key(0)).shape == (3, *task.latent_shape)


def test_shapes_of_a_vae_have_factors():
    factors_of = runpy.run_path(str(ROOT / "benchmarks" / "disentanglement.py"))["factors_of"]
    source = shapes("test", 16)
    scenes = {i: scene("test", i).things for i in range(400)}
    alone = {i: things[0] for i, things in scenes.items() if len(things) == 1}
    for i, thing in alone.items():
        x0, y0, x1, _ = thing.box
        colour, shape = list(COLOURS).index(thing.colour), list(SHAPES).index(thing.shape)
        assert factors_of(source[i]) == (colour, shape, x1 - x0, x0, y0)
    assert {thing.shape for thing in alone.values()} == set(SHAPES)
