"""A cascade whose stages are told the class, by sample.py."""

import dataclasses

import numpy as np
import pytest

from diffusion_jax.data import from_arrays
from diffusion_jax.models import ClassLabels, Joined, LowResolution
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.sample_cli import sample_command
from tests.training import toy

LARGE = "from tests.training.test_upsampling_cli import large as recipe\n"
STRANGE = "from tests.training.test_upsampling_cli import strange as recipe\n"


def doubled(split, data_dir=None):
    source = toy.pictures(split)
    images = np.stack([source[i]["image"] for i in range(len(source))])
    images = images.repeat(2, axis=1).repeat(2, axis=2)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    return from_arrays("doubled", images, labels, classes=3)


def large(steps: int = 60):
    """8x8 from the toy's 4x4, told the class."""
    return dataclasses.replace(
        toy.recipe(steps), source=doubled, image_shape=(8, 8, 1), guidance=1.0,
        conditioning=Joined((ClassLabels(3), LowResolution(2, 0.5))),
    )  # fmt: skip


def strange(steps: int = 2):
    """The same without a class, to begin with."""
    return dataclasses.replace(toy.recipe(steps), conditioning=LowResolution(2), source=doubled,
                               image_shape=(8, 8, 1), guidance=1.0)  # fmt: skip


@pytest.fixture
def cascade(checkout):
    for name, text in (("large", LARGE), ("strange", STRANGE)):
        (checkout / "configs" / f"{name}.py").write_text(text)
        if not (checkout / "runs" / name).exists():
            train_command([f"configs/{name}.py", "--log-every", "60", "--sample-every", "0"])
    return checkout


def drawn(flags):
    sample_command(f"runs/toy --num 6 --steps 4 --batch-size 3 --npz c.npz {flags}".split())
    with np.load("c.npz") as arrays:
        return arrays["pictures"]


def test_the_large_stage_is_told_the_class_and_the_small_picture(cascade):
    one, two = (drawn(f"--label {label} --upsampler runs/large") for label in (0, 2))
    assert one.shape == (6, 8, 8, 1) and np.abs(one - two).max() > 0.05
    # The small pictures are the first stage's, whatever comes after.
    small = drawn("--label 0")
    assert (
        np.corrcoef(small.ravel(), one.reshape(6, 4, 2, 4, 2, 1).mean((2, 4)).ravel())[0, 1] > 0.2
    )


def test_noise_before_a_stage_changes_what_it_draws(cascade):
    plain, noised, more = (
        drawn(f"--label 1 --upsampler runs/large {flag}")
        for flag in ("", "--augment 0.0", "--augment 0.4")
    )
    np.testing.assert_array_equal(plain, noised)
    assert np.abs(more - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("runs/strange --num 2 --upsampler runs/large", "told 'label' of every picture"),
        ("runs/toy --num 2 --upsampler runs/toy", "enlarges no pictures of 1 channels"),
        (
            "runs/toy --num 2 --label 1 --upsampler runs/large runs/large",
            "makes pictures of 8x8, and these would be of 16x16",
        ),
        ("runs/toy --num 2 --upsampler runs/large --augment 0.6", "noise from 0 to 0.5"),
    ],
)
def test_refusals(cascade, capsys, flags, message):
    assert message in toy.fails(sample_command, flags.split(), capsys)
