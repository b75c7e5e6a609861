"""Random-access data sets: what a source is, arrays and vectors, the embedded digits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Source(Protocol):
    """A data set with random access, read from several threads at once.

    `source[i]` is a dict with `image`, uint8 [h, w, c] of `image_shape`, and, where `classes` isn't
    None, `label`, an int in [0, classes). Other features (a caption, say) keep their names; text is
    `str`. What a model draws needn't be a picture: of vectors, such as embeddings, `image` is
    float32 of `image_shape`.
    """

    @property
    def name(self) -> str: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    @property
    def classes(self) -> int | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> dict[str, Any]: ...


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    classes: int | None = None,
) -> Source:
    """A source of pictures that are already in memory.

    Args:
      name: what messages call the set.
      images: uint8 [n, h, w, c].
      labels: integers [n] in [0, classes), or None.
      classes: how many labels there are; the largest label plus one when not given.

    Raises:
      ValueError: images aren't uint8 [n, h, w, c], or labels don't match them.

    >>> source = from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 1]))
    >>> len(source), source.image_shape, source.classes, source[1]["label"]
    (3, (8, 8, 1), 2, 1)
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{name}: images must be uint8 [n, h, w, c], not {images.dtype} {list(images.shape)}"
        )
    if labels is None:
        return _ArraySource(name, read_only(images), None, None)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name}: labels must be {len(images)} integers, one for each image, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    count = int(labels.max(initial=-1)) + 1 if classes is None else classes
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        span = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{name}: labels must be in 0..{count - 1}, but they span {span}")
    return _ArraySource(name, read_only(images), read_only(labels), count)


def from_vectors(
    name: str, vectors: np.ndarray, features: Mapping[str, np.ndarray] | None = None
) -> Source:
    """A source of real vectors in place of pictures, such as embeddings, in memory.

    Args:
      name: what messages call the set.
      vectors: real [n ...], `image` of the records, float32.
      features: more of each record, [n ...] each.

    Raises:
      ValueError: the vectors aren't real numbers, or features aren't of as many records.

    >>> source = from_vectors("points", np.zeros((3, 2)), {"weight": np.ones(3)})
    >>> source.image_shape, float(source[0]["weight"])
    ((2,), 1.0)
    """
    if vectors.ndim < 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(
            f"{name}: vectors must be real [n ...], not {vectors.dtype} {list(vectors.shape)}"
        )
    features = features or {}
    for feature, values in features.items():
        if len(values) != len(vectors):
            raise ValueError(f"{name}: {feature} has {len(values)} rows for {len(vectors)} vectors")
    shown = {feature: read_only(np.asarray(values)) for feature, values in features.items()}
    return _VectorSource(name, read_only(vectors.astype(np.float32)), shown)


def digits(split: str = "train") -> Source:
    """Handwritten digits that ship with scikit-learn: 8x8x1, ten classes; 1,201 train, 596 test.

    The scan's levels 0..16 become `round(255 * level / 16)`: 0 and 255 are exact, the others less
    than half a grey level off, and `round(16 * value / 255)` gives the level back. In the order of
    the file, every third picture of a class is for testing, so the splits are fixed and balanced.

    Raises:
      ValueError: the split is neither "train" nor "test".
      ModuleNotFoundError: scikit-learn isn't installed.
    """
    if split not in ("train", "test"):
        raise ValueError(f"digits has the splits 'train' and 'test', not {split!r}")
    images, labels = _digits()
    rank = np.empty(len(labels), int)  # the how-manieth picture of its class
    for label in range(10):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    chosen = (rank % 3 == 2) == (split == "test")
    return from_arrays("digits", images[chosen], labels[chosen], classes=10)


@dataclass(frozen=True, eq=False)
class _ArraySource:
    name: str
    images: np.ndarray
    labels: np.ndarray | None
    classes: int | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = {"image": self.images[i]}
        return record if self.labels is None else record | {"label": int(self.labels[i])}


@dataclass(frozen=True, eq=False)
class _VectorSource:
    name: str
    vectors: np.ndarray
    features: Mapping[str, np.ndarray]
    classes: int | None = None

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.vectors.shape[1:]

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.vectors[i]} | {k: v[i] for k, v in self.features.items()}


def read_only(array: np.ndarray) -> np.ndarray:
    """The same memory, which can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("digits needs scikit-learn: pip install scikit-learn") from error
    raw = load_digits()
    return np.rint(raw.images * (255 / 16)).astype(np.uint8)[..., None], raw.target.astype(np.int64)
