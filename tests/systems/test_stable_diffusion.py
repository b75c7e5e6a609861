"""Texts with weights and of several chunks, by a tiny encoder, and what SDXL is told of sizes."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.models import CLIP
from diffusion_jax.systems.stable_diffusion import read_texts, size_vector
from tests.interop.sd import SECOND, TEXT, drawn

N = TEXT.length
IDS = jnp.asarray([[[0, 3, 4, 5, 10, 10, 10], [0, 6, 7, 10, 10, 10, 10]]])  # [1 2 n], 10 ends
ONES = jnp.ones(IDS.shape)


def encoder(tower, layer):
    clip = CLIP(None, tower)
    return clip, drawn(shapes_of(clip)), layer


BOTH = [encoder(TEXT, "last"), encoder(SECOND, "penultimate")]


def read(ids, weights, encoders=BOTH):
    return read_texts(encoders, [ids] * len(encoders), [weights] * len(encoders))


def test_a_weight_of_one_changes_nothing():
    found = read(IDS[:, :1], ONES[:, :1])
    for (clip, params, layer), part in zip(BOTH, np.split(found.tokens, [12], -1), strict=True):
        said = clip.apply({"params": params}, IDS[:, 0], method="encode_text")
        plain = said.tokens if layer == "last" else said.penultimate
        np.testing.assert_allclose(part, plain, rtol=1e-5, atol=1e-6)


def test_a_weight_scales_a_token_beside_the_others_and_keeps_the_mean_square():
    weights = ONES.at[0, 0, 2].set(1.7)
    plain = read(IDS, ONES, BOTH[:1]).tokens[0]
    found = read(IDS, weights, BOTH[:1]).tokens[0]
    ratio = np.asarray(found / plain)
    np.testing.assert_allclose(ratio[2] / ratio[0], 1.7, rtol=1e-4)
    others = np.delete(ratio, 2, axis=0)
    np.testing.assert_allclose(others, np.broadcast_to(others[0, 0], others.shape), rtol=1e-4)
    assert abs(others[0, 0] - 1) > 1e-3
    np.testing.assert_allclose(np.mean(found**2), np.mean(plain**2), rtol=1e-5)


def test_each_encoder_keeps_its_own_mean_square():
    weights = ONES.at[0, 0, 1].set(0.2)
    for a, b in zip(
        *(np.split(read(IDS, w).tokens, [12], -1) for w in (weights, ONES)), strict=True
    ):
        np.testing.assert_allclose(np.mean(a**2), np.mean(b**2), rtol=1e-5)


def test_chunks_are_read_one_by_one_and_the_first_is_pooled():
    both = read(IDS, ONES)
    first, second = (read(IDS[:, i : i + 1], ONES[:, i : i + 1]) for i in range(2))
    one_by_one = np.concatenate([first.tokens, second.tokens], axis=1)
    np.testing.assert_allclose(both.tokens, one_by_one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both.pooled, first.pooled, rtol=1e-5, atol=1e-6)
    assert both.tokens.shape == (1, 2 * N, 20) and both.pooled.shape == (1, 6)
    assert np.abs(both.pooled - second.pooled).max() > 0.01


def test_as_many_texts_as_encoders():
    with pytest.raises(ValueError, match="2 encoders can't read 1 lists"):
        read_texts(BOTH, [IDS], [ONES])


def test_sizes_stand_behind_the_pooled_text():
    pooled = jnp.arange(4.0).reshape(2, 2)
    six = size_vector(pooled, (1024, 512), (3, 4), (768, 640))
    np.testing.assert_array_equal(six[1], [2, 3, 1024, 512, 3, 4, 768, 640])
    np.testing.assert_array_equal(
        size_vector(pooled, (8, 9), (0, 1), (2.5,))[0, 2:], [8, 9, 0, 1, 2.5]
    )
