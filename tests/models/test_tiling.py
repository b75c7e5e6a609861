"""What is done a tile at a time is what is done at once, where nothing far apart is seen."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.layers import average_pool, nearest
from diffusion_jax.models.tiling import sliced, tiled
from tests.oracle import normal


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 21, 13, 2), (1, 5, 30, 1)])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 2), (6, 0), (7, 6)])
def test_what_pixels_say_by_themselves_is_the_same(shape, tile, overlap):
    x = normal(0, *shape)
    found = tiled(lambda x: 2 * nearest(x), x, tile=tile, overlap=overlap, factor=2)
    np.testing.assert_allclose(found, 2 * nearest(x), atol=1e-5)


def test_an_encoder():
    x = normal(1, 1, 24, 16, 3)
    found = tiled(average_pool, x, tile=8, overlap=4, factor=Fraction(1, 2))
    np.testing.assert_allclose(found, average_pool(x), atol=1e-5)


def test_tiles_go_over_into_one_another():
    """Each answers its own number; between them it falls from one to the other."""
    x = jnp.arange(32.0)[None, None, :, None] * jnp.ones((1, 16, 1, 1))
    found = tiled(lambda x: jnp.full_like(x, x[0, 0, 0, 0]), x, tile=16, overlap=8, factor=1)
    row = np.asarray(found[0, 8, :, 0])
    assert row[0] == 0 and row[31] == 16 and np.all(np.diff(row) >= -1e-6)
    assert np.diff(row).max() < 3


def test_one_tile_at_a_time():
    """No call sees more than a tile; a compiled program holds one of them."""
    seen = []

    def run(x):
        seen.append(x.shape)
        return x

    tiled(run, normal(2, 1, 20, 12, 1), tile=8, overlap=2, factor=1)
    assert set(seen) == {(1, 8, 8, 1)}


def test_slices():
    x = normal(3, 3, 4, 4, 2)
    np.testing.assert_allclose(sliced(average_pool, x), average_pool(x), atol=1e-5)
    assert jax.eval_shape(lambda x: sliced(nearest, x), x).shape == (3, 8, 8, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 8, "overlap": 8, "factor": 2}, "the overlap is 8"),
        ({"tile": 6, "overlap": 2, "factor": Fraction(1, 4)}, "tile is 6, which isn't whole"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiled(nearest, normal(4, 1, 16, 16, 1), **arguments)
