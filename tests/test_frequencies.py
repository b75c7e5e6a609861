"""The cosine transform: SciPy's numbers for any size, and the transpose for an inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from diffusion_jax import frequencies
from diffusion_jax.frequencies import dct, inverse_dct, squared_frequencies
from tests import oracle

SIZES = [(1, 1), (1, 4), (2, 3), (8, 8), (7, 12), (13, 5)]
sizes = pytest.mark.parametrize("size", SIZES, ids=str)
# Both algorithms at every size: all matrices, or all Fourier transforms.
either = pytest.mark.parametrize("longest", [64, 0], ids=["matrix", "fourier"])


@pytest.fixture
def algorithm(longest, monkeypatch):
    monkeypatch.setattr(frequencies, "MATRIX_UP_TO", longest)


@either
@sizes
def test_is_scipys_and_inverts(x64, algorithm, size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    there, back = jax.jit(lambda x: (dct(x), inverse_dct(x)))(jnp.asarray(x))
    np.testing.assert_allclose(there, scipy.fft.dctn(x, axes=(1, 2), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(back, scipy.fft.idctn(x, axes=(1, 2), norm="ortho"), atol=1e-12)


@either
@pytest.mark.parametrize("size", [(4, 6), (5, 3)], ids=str)
def test_derivative_is_the_inverse(algorithm, size):
    """The transform is orthonormal, so its gradient pulls back by the inverse."""
    x, pulled = oracle.normal(0, 1, *size, 1), oracle.normal(1, 1, *size, 1)

    @jax.jit
    def gradients(x):
        there = jax.vjp(dct, x)[1](pulled)[0]
        back = jax.vjp(inverse_dct, x)[1](pulled)[0]
        return there - inverse_dct(pulled), back - dct(pulled)

    for difference in gradients(x):
        np.testing.assert_allclose(difference, 0.0, atol=1e-6)


def test_long_axes_in_float32():
    """A long axis beside a short one, each by its own algorithm, and low precision going in."""
    x = oracle.normal(0, 1, 200, 32, 1)
    there = jax.jit(dct)(x)
    np.testing.assert_allclose(there, scipy.fft.dctn(x, axes=(1, 2), norm="ortho"), atol=1e-5)
    np.testing.assert_allclose(jax.jit(inverse_dct)(there), x, atol=1e-5)
    assert dct(x[:, :2, :2].astype(jnp.bfloat16)).dtype == jnp.float32


def test_frequencies_are_the_laplacians(x64):
    """Each basis picture is an eigenvector of the mirrored second difference, in the long wave."""
    height, width = 200, 100
    wave = inverse_dct(jnp.zeros((height, width, 1)).at[2, 3, 0].set(1.0))[..., 0]
    padded = np.pad(wave, 1, mode="symmetric")
    laplacian = (
        padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * wave
    )
    np.testing.assert_allclose(
        laplacian, -squared_frequencies(height, width)[2, 3, 0] * wave, atol=1e-6
    )
