"""The Fréchet distance: a metric between Gaussians, and a number that names its protocol."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from diffusion_jax.evaluation import (
    FeatureSpace,
    FrechetResult,
    evaluate_frechet,
    frechet_between,
    frechet_distance,
    moments,
    to_levels,
)


def random_gaussian(seed, d=8, rank=None):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(d, d if rank is None else rank))
    return rng.normal(size=d), factor @ factor.T


def random_rotation(seed, d=8):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@pytest.mark.parametrize("rank", [8, 3, 0])
def test_zero_for_equal_gaussians(rank):
    mean, cov = random_gaussian(0, rank=rank)
    assert frechet_distance(mean, cov, mean, cov) <= 1e-12 * max(np.trace(cov), 1)


def test_closed_form_when_the_covariances_commute():
    """With common eigenvectors, d^2 = |m1 - m2|^2 + sum (sqrt(l1) - sqrt(l2))^2."""
    rng = np.random.default_rng(1)
    basis = random_rotation(2)
    mean1, mean2 = rng.normal(size=(2, 8))
    std1, std2 = rng.uniform(0, 2, size=(2, 8))
    got = frechet_distance(mean1, basis * std1**2 @ basis.T, mean2, basis * std2**2 @ basis.T)
    np.testing.assert_allclose(got, np.sum((mean1 - mean2) ** 2 + (std1 - std2) ** 2), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_matrix_square_root_of_scipy(seed):
    (mean1, cov1), (mean2, cov2) = random_gaussian(seed), random_gaussian(seed + 100)
    root = scipy.linalg.sqrtm(cov1 @ cov2)
    expected = np.sum((mean1 - mean2) ** 2) + np.trace(cov1 + cov2 - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(mean1, cov1, mean2, cov2), expected, rtol=1e-9)


@pytest.mark.parametrize("rank", [8, 3])
def test_symmetric_and_invariant_under_rotation_and_scaling(rank):
    (mean1, cov1), (mean2, cov2) = random_gaussian(0, rank=rank), random_gaussian(1, rank=rank)
    distance = frechet_distance(mean1, cov1, mean2, cov2)
    np.testing.assert_allclose(frechet_distance(mean2, cov2, mean1, cov1), distance, rtol=1e-12)
    q = random_rotation(3)
    rotated = frechet_distance(q @ mean1, q @ cov1 @ q.T, q @ mean2, q @ cov2 @ q.T)
    np.testing.assert_allclose(rotated, distance, rtol=1e-10)
    scaled = frechet_distance(1e-3 * mean1, 1e-6 * cov1, 1e-3 * mean2, 1e-6 * cov2)
    np.testing.assert_allclose(scaled, 1e-6 * distance, rtol=1e-10)


def test_grows_with_a_shift_of_the_mean_by_exactly_its_square():
    (mean, cov1), (_, cov2) = random_gaussian(0), random_gaussian(1)
    shift = np.linspace(-1, 2, 8)
    still, moved = (frechet_distance(mean, cov1, m, cov2) for m in (mean, mean + shift))
    np.testing.assert_allclose(moved - still, shift @ shift, rtol=1e-10)


def test_singular_covariances_in_orthogonal_subspaces():
    """No overlap at all: the distance is the sum of the traces, exact to double precision."""
    q, zero = random_rotation(5), np.zeros(8)
    cov1, cov2 = q[:, :3] @ q[:, :3].T, 7 * q[:, 3:] @ q[:, 3:].T
    np.testing.assert_allclose(frechet_distance(zero, cov1, zero, cov2), 3 + 35, rtol=1e-13)
    np.testing.assert_allclose(frechet_distance(zero, cov1, zero, 0 * cov1), 3, rtol=1e-13)


def test_moments_are_unbiased_and_in_double_precision():
    """Averaged over all samples of size 2 of a population, s^2 is the population's n/(n-1) one."""
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) + 1000
    pairs = [features[[i, j]] for i in range(6) for j in range(6) if i != j]
    mean, covariance = moments(jnp.asarray(features))
    assert mean.dtype == covariance.dtype == np.float64
    np.testing.assert_allclose(mean, np.mean([moments(p).mean for p in pairs], axis=0))
    averaged = np.mean([moments(p).covariance for p in pairs], axis=0)
    np.testing.assert_allclose(covariance, averaged, rtol=1e-8)


def test_moments_refuse_what_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 rows"):
        moments(np.zeros((1, 4)))
    features = np.zeros((5, 4))
    features[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 5 rows .* index 3"):
        moments(features)


def test_refuses_what_is_not_a_covariance():
    zero, eye = np.zeros(2), np.eye(2)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        frechet_distance(zero, np.diag([1.0, -0.5]), zero, eye)
    with pytest.raises(ValueError, match="symmetric"):
        frechet_distance(zero, eye, zero, np.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(zero, eye, zero, np.full((2, 2), np.inf))
    with pytest.raises(ValueError, match="means must be finite"):
        frechet_distance(zero * np.nan, eye, zero, eye)
    with pytest.raises(ValueError, match=r"different dimensions .* 2 and 3"):
        frechet_between(np.eye(2), np.eye(3))


SPACE = FeatureSpace("mean and spread", 2, (-1.0, 1.0))


def mean_and_spread(levels):
    assert levels.dtype == np.uint8
    x = levels.astype(np.float32)
    return np.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], axis=1)


def pictures(seed, n=20):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1)).astype(np.uint8)


def test_generated_pictures_are_rounded_like_real_ones():
    real, generated = pictures(0), pictures(1)
    floats = (generated / 127.5 - 1).astype(np.float32)
    nudged = floats + np.float32(0.3 / 127.5)  # rounds back to the same levels
    results = [
        evaluate_frechet(mean_and_spread, SPACE, images, real, reference="noise")
        for images in (generated, floats, nudged, jnp.asarray(floats))
    ]
    assert len({result.value for result in results}) == 1
    assert results[0].value > 0 and results[0].samples == results[0].reference_samples == 20
    assert evaluate_frechet(mean_and_spread, SPACE, real, real, reference="noise").value < 1e-9


def test_results_compare_within_one_protocol_only():
    good = FrechetResult(1.0, SPACE, 100, "noise", 50)
    bad = replace(good, value=2.0)
    assert good < bad and bad > good and good <= good and min(bad, good) is good
    assert hash(SPACE) == hash(replace(SPACE)) and replace(SPACE) == SPACE
    others = {
        "resize": replace(bad, protocol=replace(SPACE, resize="bilinear to 8x8")),
        "weights": replace(bad, protocol=replace(SPACE, weights="abc")),
        "rounding": replace(bad, protocol=replace(SPACE, rounding="none")),
        "samples": replace(bad, samples=99),
        "reference": replace(bad, reference="other noise"),
        "reference_samples": replace(bad, reference_samples=49),
    }
    for name, other in others.items():
        for compare in (lambda a, b: a < b, lambda a, b: a >= b, lambda a, b: min(a, b)):
            with pytest.raises(ValueError, match=f"cannot be compared; {name}: "):
                compare(good, other)


def test_a_result_prints_its_protocol():
    text = str(FrechetResult(1.25, SPACE, 100, "noise, test split", 50))
    for part in ("1.25", "100 samples", "50 of noise, test split", "mean and spread", "uint8"):
        assert part in text


def test_evaluation_refuses_a_protocol_that_names_another_function():
    with pytest.raises(ValueError, match="names 3 features"):
        evaluate_frechet(
            mean_and_spread, replace(SPACE, dimensions=3), pictures(0), pictures(1), reference="x"
        )
    with pytest.raises(ValueError, match="uint8 here"):
        evaluate_frechet(
            mean_and_spread,
            replace(SPACE, rounding="none"),
            pictures(0),
            pictures(1),
            reference="x",
        )


def test_levels_round_clip_and_refuse():
    values = np.array([-1, -0.5, 0, 1, 1.5, -3], np.float32).reshape(-1, 1, 1, 1)
    assert to_levels(values).ravel().tolist() == [0, 64, 128, 255, 255, 0]
    every = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    assert to_levels(every) is every
    np.testing.assert_array_equal(to_levels(jnp.asarray(every / 127.5 - 1, jnp.float32)), every)
    with pytest.raises(ValueError, match="uint8"):
        to_levels(every.astype(np.float32))
    values[2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 6 .* index 2"):
        to_levels(values)
