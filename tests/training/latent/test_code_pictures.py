"""Pictures code by code: trained, sampled with a cache, guided."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.systems.codes import CodePictures
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.code_cli import any_command
from diffusion_jax.training.runs import load_params, load_task
from tests.training import toy
from tests.training.latent.conftest import FEW

RUN = Path("runs/codes")


@pytest.fixture(scope="module")
def task(folder):
    train_command(["configs/codes.py", "--run-dir", str(RUN), *FEW[:2], "--sample-every", "2"])
    assert (RUN / "samples" / "step_0000002.png").is_file()
    return load_task(RUN)


@pytest.fixture(scope="module")
def known():
    return {"label": jnp.array([3, -1, 7])}


def test_the_likeliest_codes_are_those_of_the_whole_sequence(task, known):
    """At temperature 0 each code is the argmax of the logits that training would compute."""
    for gamma in (1.0, 3.0):
        system = task.system(load_params(task, RUN), temperature=0.0, guidance=gamma)
        index = jnp.arange(3)
        codes = jax.jit(CodePictures.codes)(system, jax.random.key(0), known, index)
        flat = codes.reshape(3, -1)
        told, null = (f(known) for f in (task.conditioning.condition, task.conditioning.null))
        variables = {"params": system.params}
        c, n = (task.network.apply(variables, flat, condition) for condition in (told, null))
        np.testing.assert_array_equal(flat, np.argmax(n + gamma * (c - n), axis=-1))


def test_a_picture_is_the_same_in_any_batch(task, known):
    system = task.system(load_params(task, RUN))
    draw = jax.jit(CodePictures.codes)
    all_three = draw(system, jax.random.key(5), known, jnp.arange(3))
    one = {"label": known["label"][2:]}
    np.testing.assert_array_equal(
        all_three[2:], draw(system, jax.random.key(5), one, jnp.array([2]))
    )
    assert len(np.unique(all_three)) > 1


def test_pictures_are_decoded_codes(task, known):
    system = task.system(load_params(task, RUN))
    key, index = jax.random.key(1), jnp.arange(3)
    decoded = system.decoder(system.codec, system.codes(key, known, index))
    drawn = system.sample(key, known, index)
    np.testing.assert_allclose(drawn, np.clip(decoded, -1, 1), atol=1e-6)
    few = dataclasses.replace(system, top_k=1)
    assert toy.equal(few.codes(key, known, index), few.codes(jax.random.key(2), known, index))


def test_the_command_line(task, tmp_path, capsys):
    files = ["--out", str(tmp_path / "a.png"), "--npz", str(tmp_path / "a.npz")]
    any_command([str(RUN), "--num", "3", "--label", "1", "2", "--batch-size", "2", *files])
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["pictures"].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(arrays["label"], [1, 2, 1])
    any_command(["--no-captions", str(RUN), "--num", "2", "--label", "3", *files])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["label"], [3, 3])
    for flags, sentence in (
        (["--top-k", "0"], "--top-k is 0"),
        (["--top-p", "1.5"], "--top-p is 1.5"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--label", "10"], "label 10 is out of range"),
        (["--prompt", "seven"], "--prompt was given, but this model doesn't read it"),
    ):
        err = toy.fails(any_command, [str(RUN), *flags, *files], capsys)
        assert sentence in err, (flags, err)
