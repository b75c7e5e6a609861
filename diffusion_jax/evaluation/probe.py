"""What frozen features know: a linear probe, as Radford et al. 2021 (section 3.2, A.3) fit it."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from diffusion_jax.evaluation.inputs import Labels, agreement, checked_labels

Features = Float[np.ndarray | jax.Array, "n d"]

_DECADES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # where the search for the strength begins
_FINEST = 1 / 8  # of a decade


class Probe(NamedTuple):
    """A linear classifier as plain arrays: `probe(features)` are logits [n, classes]. A pytree.

    Attributes:
      weights: [d, classes], float32.
      bias: [classes], float32.
      c: inverse strength of the regularisation that was chosen.
      held_out_accuracy: of the probe with this c that hadn't seen the held-out part, in [0, 1].
    """

    weights: Float[np.ndarray | jax.Array, "d classes"]
    bias: Float[np.ndarray | jax.Array, " classes"]
    c: float
    held_out_accuracy: float

    def __call__(self, features: Float[np.ndarray | jax.Array, "n d"]) -> Float[Array, "n classes"]:
        """Logits; in JAX, so that a probe can be jitted and differentiated."""
        return jnp.asarray(features) @ self.weights + jnp.asarray(self.bias)[None]


def linear_probe(
    features: Features,
    labels: Labels,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    iterations: int = 1000,
) -> Probe:
    """Multinomial logistic regression by L-BFGS, with a strength chosen on held-out pictures.

        minimise  |W|^2 / 2 + c sum_i -log softmax(W f_i + b)[y_i]

    c is searched where the held-out accuracy peaks: at 1e-6, 1e-4, ..., 1e6, then around the best
    of them in steps that halve down to an eighth of a decade. Of equals, the strongest
    regularisation. The probe is then fitted to all that is given.

    Args:
      features: [n, d], finite, of the *training* pictures alone.
      labels: [n]; each of 0..classes - 1 at least once.
      held_out: the share of each class, rounded down, that chooses c; in (0, 1).
      seed: draws that share.
      iterations: of L-BFGS at most. A fit that was stopped there is used as it is, as the paper's.

    Raises:
      ValueError: features that aren't finite [n, d], labels that aren't integers [n] or leave a
        class out, a single class, or classes too small for the held-out share to hold any picture.

    Source: Radford et al. 2021 (arXiv:2103.00020), appendix A.3.
    """
    rows = _checked(features)
    targets = checked_labels(labels, len(rows), np.iinfo(np.int32).max)
    present, counts = np.unique(targets, return_counts=True)
    if len(present) < 2 or present[-1] >= len(present):
        raise ValueError(
            "a probe needs at least two classes, numbered 0..classes - 1 without a gap, not "
            f"{present.tolist()}"
        )
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be in (0, 1), not {held_out}")
    aside = _aside(targets, held_out, seed)
    if not aside.any():
        raise ValueError(
            f"held_out={held_out} of classes of at most {counts.max()} pictures holds none of them"
        )

    tried: dict[float, float] = {}

    def try_out(decade: float) -> None:
        if decade not in tried:
            weights, bias = _fitted(rows[~aside], targets[~aside], 10.0**decade, iterations)
            guesses = (rows[aside] @ weights + bias).argmax(1)
            tried[decade] = agreement(guesses, targets[aside])

    for decade in _DECADES:
        try_out(decade)
    step = 1.0
    while step >= _FINEST:
        best = _peak(tried)
        for decade in (best - step, best + step):
            if _DECADES[0] <= decade <= _DECADES[-1]:
                try_out(decade)
        step /= 2
    best = _peak(tried)
    weights, bias = _fitted(rows, targets, 10.0**best, iterations)
    return Probe(weights.astype(np.float32), bias.astype(np.float32), 10.0**best, tried[best])


def probe_accuracy(
    probe: Probe,
    features: Features,
    labels: Integer[np.ndarray | jax.Array, " labels"],
) -> float:
    """Share of pictures, in [0, 1], whose largest logit is their label's.

    Raises:
      ValueError: features that aren't finite [n, d] of the probe's d, none of them, or labels that
        aren't n integers in 0..classes - 1.
    """
    rows, (d, classes) = _checked(features), probe.weights.shape
    if rows.shape[1] != d:
        raise ValueError(f"this probe reads features [n, {d}], not {list(rows.shape)}")
    known = checked_labels(labels, len(rows), classes)
    return agreement(np.asarray(probe(features)).argmax(1), known)


def _peak(tried: dict[float, float]) -> float:
    return max(tried, key=lambda decade: (tried[decade], -decade))


def _aside(targets: Int[np.ndarray, " n"], share: float, seed: int) -> np.ndarray:
    """Which pictures are held out: the same share of each class, rounded down."""
    aside, order = np.zeros(len(targets), bool), np.random.default_rng(seed).permutation
    for label in np.unique(targets):
        members = order(np.flatnonzero(targets == label))
        aside[members[: int(share * len(members))]] = True
    return aside


def _fitted(
    rows: np.ndarray, targets: np.ndarray, c: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = LogisticRegression(C=c, max_iter=iterations).fit(rows, targets)
    if len(fit.coef_) == 1:  # of two classes scikit-learn keeps the difference
        halves = np.array([-0.5, 0.5])
        return fit.coef_.T * halves[None], fit.intercept_ * halves
    return fit.coef_.T, fit.intercept_


def _checked(features: Features) -> Float[np.ndarray, "n d"]:
    rows = np.asarray(features).astype(np.float64)
    if rows.ndim != 2:
        raise ValueError(f"features must be [n, d], not {list(rows.shape)}")
    if not np.isfinite(rows).all():
        raise ValueError(
            f"features must be finite, but row {np.argmin(np.isfinite(rows).all(1))} isn't"
        )
    return rows
