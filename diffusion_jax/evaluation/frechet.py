"""The Fréchet distance between two sets of features, and what it may be compared with.

For Gaussians N(m1, C1) and N(m2, C2) the squared 2-Wasserstein distance is (Dowson & Landau 1982)

    d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2)          (1)

Heusel et al. 2017 take it between the features of real and of generated pictures, and call it FID
when the features are Inception's. The number depends on the network, the resize filter, the
rounding and the sample count, so a result carries all of them, and two results that differ in one
refuse to be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

from diffusion_jax.evaluation.inputs import Images, Levels, to_levels

RealImages = UInt8[np.ndarray | jax.Array, "m h w c"] | Float[np.ndarray | jax.Array, "m h w c"]


class Moments(NamedTuple):
    """Mean `[d]` and unbiased covariance `[d, d]` of features, in float64."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


def moments(features: Float[np.ndarray | jax.Array, "n d"]) -> Moments:
    """Mean and unbiased covariance of the rows.

        C = sum_i (f_i - m)(f_i - m)^T / (n - 1)

    Args:
      features: `[n, d]`, one row for each picture. With n <= d the covariance is singular: allowed,
        but the distance is then biased upwards more than usual.

    Raises:
      ValueError: fewer than two rows, or values that are not finite.
    """
    rows = np.asarray(features).astype(np.float64)
    if len(rows) < 2:
        raise ValueError(f"a covariance needs at least 2 rows of features, got {len(rows)}")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"features must be finite, but {np.sum(~finite)} of {len(rows)} rows are not, "
            f"the first at index {np.argmin(finite)}"
        )
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Moments(mean, centred.T @ centred / (len(rows) - 1))


def frechet_distance(
    mean1: Float[np.ndarray, " d1"],
    cov1: Float[np.ndarray, "d1 d1"],
    mean2: Float[np.ndarray, " d2"],
    cov2: Float[np.ndarray, "d2 d2"],
) -> float:
    """Squared Fréchet (2-Wasserstein) distance between two Gaussians, equation (1), in float64.

        tr((C1^1/2 C2 C1^1/2)^1/2) = |C1^1/2 C2^1/2|_*,   the sum of the singular values

    Symmetric eigendecompositions give the roots, so nothing is complex, singular covariances are
    fine, and the singular values keep the digits that a square root of near-zero eigenvalues would
    lose.

    Args:
      mean1, mean2: `[d]`.
      cov1, cov2: `[d, d]`, symmetric and positive semi-definite up to rounding.

    Returns:
      A number >= 0; zero for equal Gaussians. This is what is reported as FID, without a square
      root.

    Raises:
      ValueError: different dimensions, values that are not finite, or a matrix that is not a
        covariance.

    Source: Dowson & Landau 1982, The Fréchet distance between multivariate normal distributions;
    Heusel et al. 2017.
    """
    mean1, cov1, mean2, cov2 = (np.asarray(a, np.float64) for a in (mean1, cov1, mean2, cov2))
    if mean1.shape != mean2.shape:
        raise ValueError(
            f"features of different dimensions cannot be compared: {len(mean1)} and {len(mean2)}"
        )
    root1, root2 = _root(cov1), _root(cov2)
    overlap = np.linalg.svd(root1 @ root2, compute_uv=False).sum()
    shift = mean1 - mean2
    squared = shift @ shift + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    if not np.isfinite(squared):
        raise ValueError("the means must be finite")
    return max(float(squared), 0.0)


def frechet_between(
    features_a: Float[np.ndarray | jax.Array, "n d1"],
    features_b: Float[np.ndarray | jax.Array, "m d2"],
) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets of features `[n, d]`, `[m, d]`.

    Raises:
      ValueError: what `moments` and `frechet_distance` refuse.
    """
    return frechet_distance(*moments(features_a), *moments(features_b))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance; what is zero up to rounding becomes zero."""
    if not np.isfinite(covariance).all():
        raise ValueError("a covariance must be finite")
    scale = np.abs(covariance).max(initial=0.0)
    if not np.allclose(covariance, covariance.T, rtol=0, atol=1e-6 * scale):
        raise ValueError("a covariance must be symmetric")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    largest = np.abs(values).max(initial=0.0)
    if values.min(initial=0.0) < -1e-6 * largest:
        raise ValueError(
            "a covariance has no negative eigenvalue, "
            f"but one is {values.min():g} (the largest is {largest:g})"
        )
    # Where a singular matrix has zeros, rounding leaves +-eps; the root would be 1e8 times that.
    values = np.where(values > len(values) * np.finfo(np.float64).eps * largest, values, 0.0)
    return (vectors * np.sqrt(values)) @ vectors.T


@dataclass(frozen=True)
class FeatureSpace:
    """What turns a picture into features: all of it that changes the number. Hashes by value.

    Attributes:
      name: the network and the layer, for people: "fashion_mnist ConvClassifier, penultimate".
      dimensions: d of the features.
      pixel_range: the values that the network reads, e.g. (-1, 1).
      resize: filter and size ("bicubic antialiased to 299x299"), or "none".
      weights: a fingerprint of the parameters; two trainings of one network are two feature spaces.
      rounding: how pictures were rounded before the network.
    """

    name: str
    dimensions: int
    pixel_range: tuple[float, float]
    resize: str = "none"
    weights: str = ""
    rounding: str = "uint8"


@dataclass(frozen=True)
class FrechetResult:
    """A Fréchet distance with its protocol; `<`, `min` and `sorted` work within one protocol.

    Attributes:
      value: the distance; smaller is better.
      protocol: the feature space.
      samples: number of generated pictures (the estimate is biased upwards, by about 1 / samples).
      reference: name and split of the real pictures: "fashion_mnist test".
      reference_samples: how many of them.
    """

    value: float
    protocol: FeatureSpace
    samples: int
    reference: str
    reference_samples: int

    def __lt__(self, other: FrechetResult) -> bool:
        require_comparable(self, other)
        return self.value < other.value

    def __le__(self, other: FrechetResult) -> bool:
        require_comparable(self, other)
        return self.value <= other.value

    def __str__(self) -> str:
        space = self.protocol
        return (
            f"Fréchet distance {self.value:.4g} ({self.samples} samples against "
            f"{self.reference_samples} of {self.reference}; "
            f"{space.name}, {space.dimensions} dimensions, resize {space.resize}, "
            f"rounding {space.rounding}, weights {space.weights or 'unnamed'})"
        )


def require_comparable(a: FrechetResult, b: FrechetResult) -> None:
    """Refuse two results that were not measured the same way.

    Raises:
      ValueError: names every part of the protocol that differs, with both values.
    """
    left, right = _protocol(a), _protocol(b)
    differences = [
        f"{name}: {left[name]!r} and {right[name]!r}" for name in left if left[name] != right[name]
    ]
    if differences:
        raise ValueError(
            "these Fréchet distances follow different protocols and cannot be compared; "
            + "; ".join(differences)
        )


def _protocol(result: FrechetResult) -> dict[str, object]:
    space = {field.name: getattr(result.protocol, field.name) for field in fields(FeatureSpace)}
    return space | {
        "samples": result.samples,
        "reference": result.reference,
        "reference_samples": result.reference_samples,
    }


def evaluate_frechet(
    features: Callable[[Levels], Float[np.ndarray | jax.Array, "k d"]],
    protocol: FeatureSpace,
    generated: Images,
    real: RealImages,
    *,
    reference: str,
) -> FrechetResult:
    """Fréchet distance of generated pictures from real ones, both rounded to 8-bit levels first.

    Args:
      features: uint8 `[n, h, w, c]` -> `[n, d]`, such as `Classifier.features`.
      protocol: names that function (`Classifier.feature_space(name)`).
      generated, real: `[n, h, w, c]`, uint8 or floats in [-1, 1].
      reference: name and split of the real pictures.

    Raises:
      ValueError: features of another dimension than the protocol names, or what `moments` and
        `to_levels` refuse.
    """
    if protocol.rounding != "uint8":
        raise ValueError(
            f"pictures are rounded to uint8 here, but the protocol names {protocol.rounding!r}"
        )
    features_a, features_b = (
        np.asarray(features(to_levels(images))) for images in (generated, real)
    )
    for found in (features_a, features_b):
        if found.shape[1:] != (protocol.dimensions,):
            raise ValueError(
                f"the protocol names {protocol.dimensions} features a picture, "
                f"got an array of shape {found.shape}"
            )
    value = frechet_between(features_a, features_b)
    return FrechetResult(value, protocol, len(features_a), reference, len(features_b))
