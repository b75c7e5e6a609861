"""Random-access data sets: what a source is, arrays, the embedded digits, a copy in memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
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
        return _ArraySource(name, _read_only(images), None, None)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name}: labels must be {len(images)} integers, one for each image, "
            f"not {labels.dtype} {list(labels.shape)}"
        )
    count = int(labels.max(initial=-1)) + 1 if classes is None else classes
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        span = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{name}: labels must be in 0..{count - 1}, but they span {span}")
    return _ArraySource(name, _read_only(images), _read_only(labels), count)


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
    >>> source.image_shape, source[0]["weight"]
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
    shown = {feature: _read_only(np.asarray(values)) for feature, values in features.items()}
    return _VectorSource(name, _read_only(vectors.astype(np.float32)), shown)


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


def in_memory(source: Source, *, limit: int = 2**30) -> Source:
    """The same source, decoding each record once: images are kept as uint8, `limit` bytes at most.

    Nothing is decoded before it is asked for: the first epoch costs what it did, later ones nearly
    nothing, and memory is claimed as it fills. The images handed out are read-only.

    Raises:
      ValueError: the decoded images wouldn't fit in `limit` bytes.
    """
    size = len(source) * math.prod(source.image_shape)
    if size > limit:
        raise ValueError(
            f"{source.name}: {size / 2**20:,.2f} MiB of decoded images exceed the limit of "
            f"{limit / 2**20:,.2f} MiB; raise limit=, or read it from disk"
        )
    return _InMemory(source)


def subset(source: Source, indices: np.ndarray | Sequence[int]) -> Source:
    """The records of a source at these indices, in their order; nothing is read or copied.

    Args:
      source: any.
      indices: integers [k] in [0, len(source)); one may come twice.

    Raises:
      ValueError: no index, or one that isn't an integer of the source.

    >>> few = subset(from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8), np.arange(3)), [2, 0])
    >>> len(few), few.classes, few[0]["label"]
    (2, 3, 2)
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(
            f"{source.name}: indices must be integers [k], at least one, "
            f"not {chosen.dtype} {list(chosen.shape)}"
        )
    if not 0 <= chosen.min() <= chosen.max() < len(source):
        raise ValueError(
            f"{source.name}: indices must be in 0..{len(source) - 1}, "
            f"but they span {chosen.min()}..{chosen.max()}"
        )
    return _Subset(source, _read_only(chosen.copy()))


def mapped(source: Source, more: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Source:
    """The same source, whose records gain what `more` makes of them, each time they are read.

    >>> source = from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8), np.arange(3))
    >>> mapped(source, lambda record: {"double": 2 * record["label"]})[2]["double"]
    4
    """
    return _Mapped(source, more)


@dataclass(frozen=True, eq=False)
class _View:
    """Another source's records, in another form."""

    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.source.image_shape

    @property
    def classes(self) -> int | None:
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True, eq=False)
class _Mapped(_View):
    more: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.source[i]
        return {**record, **self.more(record)}


@dataclass(frozen=True, eq=False)
class _Subset(_View):
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[int(self.indices[i])]


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


class _InMemory:
    def __init__(self, source: Source):
        self.name = source.name
        self.image_shape = source.image_shape
        self.classes = source.classes
        self._source = source
        self._images = np.empty((len(source), *source.image_shape), np.uint8)
        self._shown = _read_only(self._images)
        self._others: list[dict[str, Any] | None] = [None] * len(source)

    def __len__(self) -> int:
        return len(self._others)

    def __getitem__(self, i: int) -> dict[str, Any]:
        others = self._others[i]
        if others is None:
            # Two threads may both decode a record; they write the same bytes, and `_others` is set
            # last, so whoever sees it sees a whole image. That is cheaper than a lock on each read.
            others = dict(self._source[i])
            self._images[i] = others.pop("image")
            self._others[i] = others
        return others | {"image": self._shown[i]}


def _read_only(array: np.ndarray) -> np.ndarray:
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
