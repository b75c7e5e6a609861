"""Pictures in patches, and networks that see patches as pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import Patched, Refined
from diffusion_jax.models.patches import cut_patches, join_patches
from diffusion_jax.types import Condition
from tests.oracle import normal


def test_patches_come_back():
    x = normal(4, 2, 6, 6, 3)
    cut = cut_patches(x, 3)
    assert cut.shape == (2, 4, 27)
    np.testing.assert_array_equal(cut[:, 1].reshape(2, 3, 3, 3), x[:, :3, 3:])
    np.testing.assert_array_equal(join_patches(cut.reshape(2, 2, 2, 3, 3, 3)), x)


class Seen(nn.Module):
    """Answers twice what it sees, and checks the condition's picture."""

    def __call__(self, x, t, condition):
        assert condition.image is None or condition.image.shape[:3] == x.shape[:3]
        return 2 * x if condition.image is None else x + condition.image


def test_a_network_sees_patches_as_pixels():
    x, t = normal(1, 2, 4, 6, 3), jnp.zeros(2)
    np.testing.assert_array_equal(Patched(Seen()).apply({}, x, t), 2 * x)
    image = normal(2, 2, 4, 6, 3)
    told = Patched(Seen()).apply({}, x, t, Condition(image=image))
    np.testing.assert_array_equal(told, x + image)

    class Shape(nn.Module):
        def __call__(self, x, t, condition):
            assert x.shape == (2, 2, 3, 12)
            np.testing.assert_array_equal(x[1, 0, 2].reshape(2, 2, 3), given[1, :2, 4:])
            return x

    given = x
    Patched(Shape()).apply({}, x, t)


def test_pictures_that_cannot_be_cut():
    with pytest.raises(ValueError, match="5x4 can't be cut into patches of 2x2"):
        jax.eval_shape(
            lambda x: Patched(Seen()).apply({}, x, jnp.zeros(1)), jnp.zeros((1, 5, 4, 3))
        )


def test_an_enlarged_picture_is_refined():
    x, t, image = normal(1, 2, 4, 6, 3), jnp.zeros(2), normal(2, 2, 4, 6, 3)
    told = Refined(Patched(Seen())).apply({}, x, t, Condition(image=image))
    np.testing.assert_array_equal(told, image + (x + image))
    with pytest.raises(ValueError, match="not no picture"):
        Refined(Seen()).apply({}, x, t)
    with pytest.raises(ValueError, match="not one of"):
        Refined(Seen()).apply({}, x, t, Condition(image=image[:, :2]))
