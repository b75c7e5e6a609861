"""Whether one latent tells one factor: the mutual information gap.

    MIG = 1/K sum_k (I(z_a; v_k) - I(z_b; v_k)) / H(v_k),                                  (1)

with a and b the latents that tell most and second most of factor v_k. 1: each factor is in one
latent alone; 0: in two alike, or in none. Information is counted in a histogram of latents, in
bins of equally many rows, so that it doesn't depend on their scale.

Sources: Chen et al. 2018 (arXiv:1802.04942), equation (6), whose z is drawn from the posterior; the
histogram as in Locatello et al. 2019 (arXiv:1811.12359), appendix C.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Gap(NamedTuple):
    """The mutual information gap and what it is made of.

    Attributes:
        mean: equation (1).
        factors: the gap of each factor [k].
        told: I(z_j; v_k) / H(v_k) [d k].
    """

    mean: float
    factors: Float[np.ndarray, " k"]
    told: Float[np.ndarray, "d k"]


def mutual_information_gap(
    latents: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n k"], bins: int = 20
) -> Gap:
    """Equation (1).

    Args:
        latents: one row a picture, drawn from q(z | x). Means would let a latent tell that is all
            but noise to the decoder.
        factors: the true factors of each picture, as numbers of their values.
        bins: of the histogram of each latent. Counted information is too high by about
            (bins - 1)(values - 1) / (2 n) nats: n is to be many times both.

    Raises:
        ValueError: other shapes, fewer than two latents, or a factor that never changes.

    >>> rng = np.random.default_rng(0)
    >>> v = rng.integers(0, 4, (4000, 2))
    >>> alone = mutual_information_gap(v + 0.01 * rng.normal(size=v.shape), v, bins=4)
    >>> bool(alone.mean > 0.95)
    True
    """
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise ValueError(
            f"latents {latents.shape} and factors {factors.shape} must be [n d] and [n k]."
        )
    if latents.shape[1] < 2:
        raise ValueError("a gap needs two latents at least.")
    entropy = np.array([_entropy(np.bincount(v - v.min())) for v in factors.T])
    if not np.all(entropy > 0):
        raise ValueError(f"factor {int(np.argmin(entropy))} never changes.")
    binned = [_equal_bins(z, bins) for z in latents.T]
    told = np.array([[_information(z, v - v.min()) for v in factors.T] for z in binned]) / entropy
    most = np.sort(told, axis=0)
    gaps = most[-1] - most[-2]
    return Gap(float(gaps.mean()), gaps, told)


def _equal_bins(z: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each value, each of about as many; equal values share one."""
    edges = np.quantile(z, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, z, side="right")


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def _information(z: np.ndarray, v: np.ndarray) -> float:
    """I = H(z) + H(v) - H(z, v) in nats, of numbers from 0 up."""
    joint = np.zeros((z.max() + 1, v.max() + 1))
    np.add.at(joint, (z, v), 1)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())
