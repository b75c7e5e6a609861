"""The judge of the embedded digits: which digit does an 8x8 picture show?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from diffusion_jax.evaluation.inputs import Images, Labels, agreement, checked_labels, to_levels


@dataclass(frozen=True, eq=False)
class DigitsJudge:
    """A support vector machine that reads handwritten digits.

    Its methods take pictures `[n, h, w, c]`, uint8 or floats in [-1, 1], and round them alike.

    Attributes:
      model: the fitted scikit-learn classifier.
      shape: `(h, w, c)` of the pictures it was trained on; others are refused.
    """

    model: Any
    shape: tuple[int, int, int]

    def predict(self, images: Images) -> Int[np.ndarray, " n"]:
        """The digit that each picture shows."""
        levels = to_levels(images)
        if levels.shape[1:] != self.shape:
            raise ValueError(
                f"this judge reads pictures of shape {self.shape}, got {levels.shape[1:]}"
            )
        return self.model.predict(_rows(levels)).astype(np.int32)

    def accuracy(self, images: Images, labels: Labels) -> float:
        """Share of pictures, in [0, 1], whose predicted digit is the label."""
        return agreement(self.predict(images), labels)


def digits_judge(images: Images, labels: Labels) -> DigitsJudge:
    """Fit a support vector machine with a Gaussian kernel to small pictures: the 8x8 digits.

    Give it the *training* split alone, and report its accuracy on the test split beside every rate
    it measures.

    Args:
      images: `[n, h, w, c]`, uint8 or floats in [-1, 1].
      labels: `[n]`, integers >= 0.

    Raises:
      ValueError: another number of labels than of images, or a single class.
    """
    from sklearn.svm import SVC

    levels = to_levels(images)
    targets = checked_labels(labels, len(levels), np.iinfo(np.int32).max)
    if len(np.unique(targets)) < 2:
        raise ValueError("a judge needs pictures of at least two classes")
    return DigitsJudge(SVC(C=10.0, gamma="scale").fit(_rows(levels), targets), levels.shape[1:])


def _rows(levels: np.ndarray) -> np.ndarray:
    return levels.reshape(len(levels), -1) / 255.0
