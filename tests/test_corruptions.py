"""Random corruptions: what each keeps and takes, and whom it depends on."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.corruptions import BSR, RandomBlur, blurred, jpeg, rescaled
from diffusion_jax.random import example_keys

PLACE = jnp.linspace(0.0, 3.0, 16)
SMOOTH = jnp.sin(PLACE[:, None, None] + jnp.cos(PLACE)[None, :, None] + jnp.arange(3)[None, None])
ROUGH = jax.random.uniform(jax.random.key(0), (16, 16, 3), minval=-1.0)
FLAT = jnp.full((16, 16, 3), 0.3, jnp.float32)


def keys(count, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(count))


def roughness(x):
    return float(jnp.square(jnp.diff(x, axis=0)).mean())


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda x, s: blurred(x, 2.0 * s),
        lambda x, s: rescaled(x, 1.0 - 0.7 * s),
        lambda x, s: jpeg(x, 100.0 - 95.0 * s),
    ],
    ids=["blur", "rescale", "jpeg"],
)
def test_the_stronger_the_more_is_lost_and_flat_stays_flat(corrupt):
    run = jax.jit(corrupt)
    lost = [float(jnp.abs(run(ROUGH, jnp.asarray(s)) - ROUGH).mean()) for s in (0.0, 0.4, 0.9)]
    assert lost[0] < 0.02 and lost[0] < lost[1] < lost[2]
    for s in (0.0, 0.4, 0.9):
        np.testing.assert_allclose(run(FLAT, jnp.asarray(s)), FLAT, atol=0.05)
    assert run._cache_size() == 1


def test_blur_keeps_means_and_smooths():
    soft = blurred(ROUGH, jnp.asarray(1.0))
    np.testing.assert_allclose(soft.mean((0, 1)), ROUGH.mean((0, 1)), atol=1e-6)
    assert roughness(soft) < 0.2 * roughness(ROUGH)
    np.testing.assert_array_equal(blurred(ROUGH, jnp.asarray(0.0)), ROUGH)


def test_rescaling_by_one_is_nothing():
    np.testing.assert_allclose(rescaled(ROUGH, jnp.asarray(1.0)), ROUGH, atol=1e-6)


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_jpeg_loses_what_a_library_loses(quality):
    """On grey, where colours aren't changed for others. Pillow's levels are whole numbers."""
    levels = np.asarray((SMOOTH[..., :1] + 0.3 * ROUGH[..., :1]).clip(-1, 1) * 127.5 + 127.5)
    picture = np.rint(levels).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(file, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(file)).astype(np.float32)
    ours = jpeg(jnp.asarray(picture, jnp.float32) / 127.5 - 1, jnp.asarray(float(quality)))
    ours = np.asarray(ours[..., 0]) * 127.5 + 127.5
    blocks = np.abs(ours.clip(0, 255) - theirs).reshape(2, 8, 2, 8).mean((1, 3))
    # Its transform is of integers, so now and then a value is rounded the other way in a block.
    assert (blocks < 0.3).sum() >= 3 and blocks.mean() < 2
    assert np.abs(theirs - picture[..., 0]).mean() > 2


@pytest.mark.parametrize("corruption", [RandomBlur(), BSR()], ids=["blur", "bsr"])
def test_a_picture_depends_on_its_key_alone(corruption):
    pictures = jnp.broadcast_to(ROUGH[None], (6, 16, 16, 3))
    many = corruption(keys(6), pictures)
    np.testing.assert_allclose(corruption(keys(6)[2:4], pictures[2:4]), many[2:4], atol=1e-5)
    changed = jnp.abs(many - pictures).mean((1, 2, 3))
    assert len(np.unique(np.round(changed, 5))) > 2 and jnp.isfinite(many).all()


def test_a_share_of_pictures_stays_sharp():
    pictures = jnp.broadcast_to(ROUGH[None], (200, 16, 16, 3))
    changed = jnp.abs(RandomBlur(share=0.3)(keys(200), pictures) - pictures).max((1, 2, 3))
    np.testing.assert_allclose((changed > 0).mean(), 0.3, atol=0.1)


def test_bsr_is_mild_and_in_range():
    pictures = jnp.broadcast_to(SMOOTH[None], (24, 16, 16, 3))
    rough = BSR()(keys(24), pictures)
    assert float(jnp.abs(rough).max()) <= 1.0
    assert 0.005 < float(jnp.abs(rough - pictures).mean()) < 0.15
