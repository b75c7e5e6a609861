"""The mutual information gap where it is known: factors alone, mixed, doubled, unknown."""

import numpy as np
import pytest

from diffusion_jax.evaluation.disentanglement import mutual_information_gap

RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, 4, (5000, 2))
NOISE = RNG.normal(size=(5000, 2))


def test_it_is_one_for_factors_alone_whatever_their_scale_and_order():
    z = FACTORS + 0.01 * NOISE
    alone = mutual_information_gap(z, FACTORS, bins=4)
    assert alone.mean > 0.95
    other = mutual_information_gap(1000 * z[:, ::-1] - 7, FACTORS, bins=4)
    np.testing.assert_allclose(other.mean, alone.mean)
    np.testing.assert_array_equal(alone.told.argmax(0), [0, 1])


def test_mixing_doubling_and_not_knowing_lower_it():
    z = FACTORS + 0.01 * NOISE
    turned = z @ np.array([[1.0, 1.0], [1.0, -1.0]])
    assert mutual_information_gap(turned, FACTORS).mean < 0.1
    doubled = np.concatenate([z, z], axis=1)
    assert mutual_information_gap(doubled, FACTORS).mean < 0.01
    nothing = mutual_information_gap(NOISE, FACTORS)
    assert nothing.mean < 0.02 and np.all(nothing.told < 0.02)


def test_a_latent_that_is_noise_tells_nothing_though_its_mean_does():
    means = (FACTORS + 0.01 * NOISE) * np.array([1.0, 1e-4])
    assert mutual_information_gap(means, FACTORS, bins=4).told[1, 1] > 0.95
    drawn = means + np.array([0.0, 1.0]) * NOISE
    assert mutual_information_gap(drawn, FACTORS, bins=4).told[1].max() < 0.02


def test_information_is_that_of_a_channel():
    """A bit seen through a channel that flips it one time in ten tells log 2 - H(0.1) of it."""
    bit = RNG.integers(0, 2, (20_000, 1))
    seen = np.where(RNG.random(bit.shape) < 0.1, 1 - bit, bit) + 0.0
    told = mutual_information_gap(np.concatenate([seen, 0 * seen], 1), bit, bins=2).told
    share = 1 + (0.1 * np.log(0.1) + 0.9 * np.log(0.9)) / np.log(2)
    np.testing.assert_allclose(told[:, 0], [share, 0.0], atol=0.02)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="factor 1 never changes"):
        mutual_information_gap(NOISE, FACTORS * np.array([1, 0]))
    with pytest.raises(ValueError, match="two latents"):
        mutual_information_gap(NOISE[:, :1], FACTORS)
