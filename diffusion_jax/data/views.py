"""Sources made of sources: parts, more features, smaller pictures, a copy in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_jax.data.sources import Source, read_only


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

    >>> from diffusion_jax.data import from_arrays
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
    return _Subset(source, read_only(chosen.copy()))


def mapped(source: Source, more: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Source:
    """The same source, whose records gain what `more` makes of them, each time they are read.

    >>> from diffusion_jax.data import from_arrays
    >>> source = from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8), np.arange(3))
    >>> mapped(source, lambda record: {"double": 2 * record["label"]})[2]["double"]
    4
    """
    return _Mapped(source, more)


def joined(source: Source, **features: np.ndarray) -> Source:
    """The same source, whose record i gains row i of each of these arrays.

    Raises:
      ValueError: an array doesn't have a row for each record.

    >>> from diffusion_jax.data import from_arrays
    >>> source = from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8))
    >>> float(joined(source, weight=np.arange(3.0))[2]["weight"])
    2.0
    """
    for feature, values in features.items():
        if len(values) != len(source):
            raise ValueError(
                f"{source.name} has {len(source)} records, and {feature} {len(values)} rows"
            )
    return _Joined(source, features)


def shrunk(source: Source, factor: int) -> Source:
    """The same source, its pictures the means of factor x factor blocks, rounded.

    Raises:
      ValueError: height or width isn't a multiple of the factor.

    >>> from diffusion_jax.data import from_arrays
    >>> source = shrunk(from_arrays("dots", np.zeros((3, 8, 8, 1), np.uint8)), 2)
    >>> source.image_shape, source[0]["image"].shape
    ((4, 4, 1), (4, 4, 1))
    """
    height, width, _ = source.image_shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"{source.name}: pictures of {height}x{width} can't be cut by {factor}")
    return _Shrunk(source, factor)


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
class _Joined(_View):
    features: Mapping[str, np.ndarray]

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**self.source[i], **{name: rows[i] for name, rows in self.features.items()}}


@dataclass(frozen=True, eq=False)
class _Shrunk(_View):
    factor: int

    @property
    def image_shape(self) -> tuple[int, ...]:
        height, width, channels = self.source.image_shape
        return (height // self.factor, width // self.factor, channels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.source[i]
        height, width, channels = self.image_shape
        blocks = (height, self.factor, width, self.factor, channels)
        means = record["image"].reshape(blocks).astype(np.float32).mean((1, 3))
        return {**record, "image": np.rint(means).astype(np.uint8)}


@dataclass(frozen=True, eq=False)
class _Subset(_View):
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.source[int(self.indices[i])]


class _InMemory:
    def __init__(self, source: Source):
        self.name = source.name
        self.image_shape = source.image_shape
        self.classes = source.classes
        self._source = source
        self._images = np.empty((len(source), *source.image_shape), np.uint8)
        self._shown = read_only(self._images)
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
