"""Latent diffusion with a codec and a denoiser that are known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.models.layers import average_pool, nearest
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.systems.latent import (
    Codec,
    LatentDiffusion,
    begun,
    in_tiles,
    one_by_one,
    shrunk_mask,
)
from tests.oracle import normal

PROCESS = dj.Gaussian(dj.Cosine())
INDEX = jnp.arange(4)


def about(params, known, guidance):
    """The exact denoiser of z_0 ~ N(what is known, 0.1^2)."""

    def denoiser(x, t):
        alpha, sigma = PROCESS.scales(t, x)
        whitened = (x - alpha * known["mean"]) / (alpha**2 * 0.01 + sigma**2)
        return dj.Prediction(known["mean"] + 0.01 * alpha * whitened, sigma * whitened)

    return denoiser


CODEC = Codec(lambda p, x: p * average_pool(x), lambda p, z: nearest(z) / p, 5.0, 0.4, 1.0)
STAGE = Stage(about, None, PROCESS, (4, 4, 3), dj.DDIM(), dj.trailing(20))
SYSTEM = LatentDiffusion(STAGE, CODEC)
KNOWN = {"mean": 0.3 * normal(0, 4, 4, 4, 3)}
KEY = jax.random.key(0)


def test_latents_are_scaled_and_come_back():
    z = normal(1, 2, 4, 4, 3) * 0.3
    x = nearest(z)
    np.testing.assert_allclose(CODEC.encode(x), (5 * z - 1) * 0.4, atol=1e-6)
    np.testing.assert_allclose(CODEC.decode(CODEC.encode(x)), jnp.clip(x, -1, 1), atol=1e-6)


def test_pictures_are_of_what_is_known():
    drawn = jax.jit(LatentDiffusion.sample)(SYSTEM, KEY, KNOWN, INDEX)
    assert drawn.shape == (4, 8, 8, 3)
    wanted = CODEC.decode(KNOWN["mean"])
    assert 0.005 < float(jnp.abs(drawn - wanted).mean()) < 0.1


def test_variations_lie_between_picture_0_and_ones_own():
    known = {"mean": jnp.zeros((4, 4, 4, 3))}
    plain = SYSTEM.sample(KEY, known, INDEX)
    first = np.broadcast_to(plain[:1], plain.shape)
    np.testing.assert_allclose(SYSTEM.variations(KEY, known, INDEX, 0.0), first, atol=1e-6)
    np.testing.assert_allclose(SYSTEM.variations(KEY, known, INDEX, 1.0), plain, atol=1e-6)
    some = SYSTEM.variations(KEY, known, INDEX, 0.3)
    np.testing.assert_allclose(some[0], plain[0], atol=1e-6)
    to_first, to_own = (np.abs(some - other)[1:].mean() for other in (first, plain))
    assert 0 < to_first < to_own


def test_image_to_image_keeps_the_more_the_less_is_forgotten():
    picture = nearest(0.5 + 0.2 * normal(2, 4, 4, 4, 3))
    away = []
    for strength in (0.1, 0.4, 1.0):
        system = dataclasses.replace(SYSTEM, stage=begun(STAGE, strength))
        drawn = system.image_to_image(KEY, picture, KNOWN, INDEX)
        away.append(float(jnp.abs(drawn - picture).mean()))
    assert away[0] < away[1] < away[2]


def test_what_is_kept_stays_bit_for_bit():
    picture, mask = nearest(0.2 * normal(3, 4, 4, 4, 3)), jnp.ones((4, 8, 8, 1))
    mask = mask.at[:, 2:7, 3:6].set(0)
    drawn = SYSTEM.inpaint(KEY, picture, mask, KNOWN, INDEX)
    kept = np.broadcast_to(mask == 1, picture.shape)
    np.testing.assert_array_equal(drawn[kept], picture[kept])
    assert float(jnp.abs(drawn - picture).max()) > 0.05


def test_a_latent_is_kept_where_all_its_pixels_are():
    mask = jnp.ones((1, 4, 6, 1)).at[0, 1, 2].set(0)
    np.testing.assert_array_equal(shrunk_mask(mask, (2, 3))[0, :, :, 0], [[1, 0, 1], [1, 1, 1]])
    with pytest.raises(ValueError, match="can't be shrunk to 3x3"):
        shrunk_mask(mask, (3, 3))


@pytest.mark.parametrize("strength", [0.0, 0.04, 1.2, -1.0])
def test_strengths_that_leave_no_step(strength):
    with pytest.raises(ValueError, match=f"strength is {strength}"):
        begun(STAGE, strength)


def test_begun_cuts_the_walk():
    np.testing.assert_array_equal(begun(STAGE, 0.5).times, STAGE.times[10:])
    np.testing.assert_array_equal(begun(STAGE, 1.0).times, STAGE.times)


def test_what_may_change_compiles_nothing():
    """Texts, guidance and seeds are arguments of one compiled program."""
    sample = jax.jit(lambda *arguments: LatentDiffusion.sample(*arguments))  # not seen before
    stage = dataclasses.replace(STAGE, guidance=2.0)
    first = sample(dataclasses.replace(SYSTEM, stage=stage), KEY, KNOWN, INDEX)
    other = dataclasses.replace(SYSTEM, stage=dataclasses.replace(STAGE, guidance=3.5))
    known = {"mean": -KNOWN["mean"]}
    second = sample(other, jax.random.key(7), known, INDEX + 4)
    assert sample._cache_size() == 1 and float(jnp.abs(first - second).max()) > 0.1


def test_a_codec_in_tiles_and_one_by_one():
    picture = nearest(0.3 * normal(4, 2, 12, 8, 3))
    z = CODEC.encode(picture)
    for codec in (in_tiles(CODEC, 8, 2), one_by_one(CODEC)):
        np.testing.assert_allclose(codec.encode(picture), z, atol=1e-6)
        np.testing.assert_allclose(codec.decode(z), CODEC.decode(z), atol=1e-6)
    with pytest.raises(ValueError, match="a tile of 12 isn't possible; a multiple of 8 is"):
        in_tiles(CODEC, 12, 2)
