"""The chain from prompts to pictures, and what is done with embeddings, by sample.py."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.data import save_png
from diffusion_jax.systems import Unclip
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.needs import check_pinned
from diffusion_jax.training.sample_cli import sample_command
from diffusion_jax.training.stages import load_unclip
from tests.training import toy


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
    with Image.open("samples.png") as image:
        width, height = image.size
    assert width == 2 * 128 + 3 and height > 130  # captions below


def test_the_chain_in_python_draws_the_pictures_of_the_command(chain):
    """Another program, whose arithmetic is in another order: not the same bits."""
    flags = "runs/decoder --prior runs/prior --num 3 --steps 4 --batch-size 3 --seed 5"
    up = "--upsampler runs/upsampler runs/upsampler --augment 0.1"
    prompts = ["a red cube", "a blue ball"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sample_command([*flags.split(), *up.split(), "--npz", "c.npz", "--prompt", *prompts])
    ups = [Path("runs/upsampler")] * 2
    runs = Path("runs/decoder"), Path("runs/prior"), ups
    unclip, read = load_unclip(*runs, steps=4, augment=0.1)
    told = read([prompts[i % 2] for i in range(3)])
    drawn = jax.jit(Unclip.sample)(unclip, jax.random.key(5), told, jnp.arange(3))
    with np.load("c.npz") as arrays:
        np.testing.assert_allclose(drawn, arrays["pictures"], atol=1e-4)


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


def test_another_clip_in_its_place_is_noticed(chain):
    prior = Path("runs/prior")
    check_pinned(prior, [Path("runs/clip")])
    check_pinned(prior, [Path("elsewhere")])  # which isn't there, so isn't read
    with pytest.raises(ValueError, match="which its recipe reads here, is another one"):
        check_pinned(prior, [Path("runs/decoder")])
    with pytest.raises(ValueError, match="trained with noise from 0 to"):
        load_unclip(Path("runs/decoder"), prior, [Path("runs/upsampler")], augment=float("nan"))


def test_an_upsampler_enlarges_a_file_of_any_size(picture):
    save_png("small.png", np.full((12, 20, 3), 99, np.uint8))
    flags = "runs/upsampler --low-resolution small.png --num 1 --steps 2 --npz u.npz"
    sample_command(flags.split())
    with np.load("u.npz") as arrays:
        assert arrays["pictures"].shape == (1, 24, 40, 3)


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
        ("runs/decoder --variations a.png --rescale 0.5", "--rescale doesn't go with"),
        ("runs/decoder --edit a.png --from cube --to cube", "say the same to this decoder's CLIP"),
        ("runs/decoder --edit a.png --from cube --to ball --num 1", "--num is 1"),
        ("runs/upsampler --low-resolution no.png", "--low-resolution: no.png is no picture"),
        ("runs/decoder --variations a.png --fixed-noise", "--fixed-noise belongs to"),
        ("runs/decoder --variations samples.png", "--variations: samples.png has"),
        ("runs/upsampler --variations a.png", "reads no embeddings"),
    ],
)
def test_turns_that_are_refused(picture, capsys, flags, message):
    save_png("samples.png", np.zeros((8, 8, 3), np.uint8))
    Path("no.png").write_text("no")
    assert message in toy.fails(sample_command, flags.split(), capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("runs/decoder --prior runs/prior", "--prior needs a text: --prompt"),
        ("runs/decoder --prior runs/clip --prompt ball", "holds no prior"),
        ("runs/decoder --prior runs/prior --prompt ball --label 1", "with --prompt alone"),
        ("runs/prior --prompt ball", "holds no diffusion model of pictures"),
        ("runs/decoder --prior-steps 3", "--prior-steps was given, but it belongs to --prior"),
        ("runs/decoder --prior runs/stranger --prompt ball", "weren't trained on the same CLIP"),
        ("runs/decoder --prompt ball", "name its run folder by --prior"),
        ("runs/decoder --prior runs/prior --prompt ball --prior-guidance nan", "--prior-guidance"),
        ("runs/decoder --prior runs/prior --prompt ball --prior-steps 0", "--prior-steps is 0"),
        ("runs/decoder --upsampler runs/nothing", "no recipe.json"),
        ("runs/decoder --upsampler runs/decoder", "enlarges no pictures of 3 channels"),
        ("runs/decoder --augment 0.1", "--augment was given, but it belongs to --upsampler"),
        ("runs/decoder --upsampler runs/upsampler --augment 0.9", "trained with noise from 0 to"),
    ],
)
def test_sample_refuses(chain, capsys, flags, message):
    assert message in toy.fails(sample_command, flags.split(), capsys)
