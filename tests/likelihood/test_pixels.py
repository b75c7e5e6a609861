"""Levels and bits: bins that fill the line, noise that fills the bins, and what a nat is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.likelihood import (
    DEQUANTISATION_BITS,
    bits_per_dimension,
    dequantise,
    discretised_gaussian,
)
from tests import oracle

LEVELS = np.arange(256)
PIXELS = (LEVELS / 127.5 - 1).astype(np.float32)


@pytest.mark.parametrize("std", [1e-4, 1e-3, 1 / 255, 0.1, 3.0])
def test_the_256_levels_have_all_the_probability(std):
    """Wherever the mean is, and beyond the ends too."""
    mean = np.array([-1.5, -1.0, -0.7012, 0.001, 0.3, 0.9999, 2.0], np.float32)
    x, m = (v.reshape(-1, 1) for v in np.meshgrid(PIXELS, mean))
    log_p = jax.jit(discretised_gaussian)(x, m, np.full_like(m, std))
    assert np.all(np.isfinite(log_p))
    mass = np.exp(np.asarray(log_p, np.float64)).reshape(len(mean), 256).sum(1)
    np.testing.assert_allclose(mass, 1.0, atol=2e-4)


def test_far_from_the_mean_the_bin_keeps_its_digits(x64):
    """In logarithms the mass of a narrow bin is its width times the density, 5 deviations off.

    And 100 deviations off it is still the tail of the nearer edge.
    """
    x, mean = jnp.array([[PIXELS[100]]], jnp.float64), jnp.array([[PIXELS[100] + 1.0]])
    log_p = discretised_gaussian(x, mean, jnp.array([[0.2]]))
    density = -0.5 * (1 / 0.2**2 + np.log(2 * np.pi * 0.2**2)) + np.log(2 / 255)
    np.testing.assert_allclose(log_p, density, atol=3e-3)
    deep = discretised_gaussian(x, mean, jnp.array([[0.01]]))
    assert -5100 < deep < -4900


def test_gradient_is_finite_at_both_ends_and_between():
    x = jnp.asarray(PIXELS)[:, None]
    gradient = jax.jit(
        jax.grad(lambda m, s: discretised_gaussian(x, m, s * jnp.ones_like(x)).sum(), (0, 1))
    )
    for mean in (jnp.full_like(x, 0.25), x):
        for std in (0.01, 1.0, 30.0):
            assert all(np.all(np.isfinite(g)) for g in gradient(mean, std))


def test_dequantised_pixels_fill_their_bins():
    images = np.repeat(LEVELS, 64).astype(np.uint8).reshape(16, 32, 32, 1)
    x = np.asarray(dequantise(jax.random.key(0), jnp.arange(16), jnp.asarray(images)), np.float64)
    place = (x + 1) * 127.5 - images
    assert place.min() >= -0.5 - 1e-4 and place.max() <= 0.5 + 1e-4
    assert abs(place.mean()) < 5 / np.sqrt(12 * place.size)
    assert abs(place.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / place.size)
    floats = images.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        dequantise(jax.random.key(0), jnp.arange(16), jnp.asarray(floats)), x, atol=1e-6
    )


def test_an_example_is_dequantised_by_its_number_alone():
    images = jnp.asarray(oracle.normal(0, 6, 4, 4, 1))
    whole = dequantise(jax.random.key(1), jnp.arange(6), images)
    part = dequantise(jax.random.key(1), jnp.array([4, 1]), images[jnp.array([4, 1])])
    np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])
    assert not np.array_equal(whole[0] - images[0], whole[1] - images[1])


def test_uniform_levels_are_8_bits():
    """Dequantised uniform levels are uniform on an interval: its density is worth 8 bits."""
    width = 256 * 2 / 255
    bits = bits_per_dimension(jnp.asarray(10 * np.log(width)), 10) + DEQUANTISATION_BITS
    np.testing.assert_allclose(bits, 8.0, rtol=1e-6)
