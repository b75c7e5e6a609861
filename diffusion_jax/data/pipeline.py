"""Batches whose order is a pure function of (seed, number of records, batch size), on Grain.

    global example number k  =  batch number * batch size + place in the batch
    its epoch                =  k // records
    its record               =  shuffle(seed, epoch)(k mod records)

Batches run across the ends of epochs, so no record is ever dropped. A process reads the rows of
each batch that its devices hold, and no others; what a batch holds doesn't depend on how many
processes there are, and the whole position is one number: that of the next batch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.data.augment import Augment, example_keys
from diffusion_jax.data.sources import Source


class Batches:
    """An endless iterator over batches; made by `batches`."""

    def __init__(self, iterator: Any, batch_size: int, position: int, rows: np.ndarray):
        self._iterator = iterator
        self._batch_size = batch_size
        self._position = position
        self._rows = rows

    @property
    def rows(self) -> np.ndarray:
        """The places in the global batch, ascending, of what this process reads."""
        return self._rows

    @property
    def batch_size(self) -> int:
        """The global batch size, over all processes."""
        return self._batch_size

    @property
    def position(self) -> int:
        """The number of the batch that comes next; `batches(..., start=position)` goes on there."""
        return self._position

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._iterator)
        self._position += 1
        return batch

    def close(self) -> None:
        """Stops the reading threads; what they have begun is finished and thrown away."""
        self._iterator.close()


def batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    rows: Sequence[int] | np.ndarray | None = None,
    augment: Augment | None = None,
    features: tuple[str, ...] = (),
    threads: int = 2,
) -> Batches:
    """This process's part of every batch, shuffled anew each epoch, read ahead in threads.

    Args:
      source: the records; wrap it in `in_memory` where decoding is slower than training.
      batch_size: of the global batch.
      seed: of the order and the augmentation, any integer from 0.
      start: the number of the first batch; what follows is what an uninterrupted run would see.
      rows: places in the global batch, ascending, that this process reads (`local_rows`); all of
        them by default.
      augment: such as `flip()`.
      features: what else of each record a batch holds, arrays of one shape or numbers.
      threads: batches read at once, with as many again waiting; 0 reads in the caller's thread.

    Returns:
      An endless iterator over dicts of numpy arrays, with b = len(rows): `image`, float32
      [b, h, w, c] in [-1, 1], or a source's real vectors as they are; `label`, int32 [b], where
      the source has classes; `index`, int64 [b], the record numbers; and every one of `features`,
      [b, ...].

    Raises:
      ValueError: the source is empty or lacks a feature, or a number is out of range.

    >>> from diffusion_jax.data import from_arrays
    >>> source = from_arrays("dots", np.zeros((10, 8, 8, 1), np.uint8))
    >>> first = next(batches(source, 4, seed=0))
    >>> first["image"].shape, first["index"].shape
    ((4, 8, 8, 1), (4,))
    """
    _check(source, batch_size, seed, start, threads)
    places = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
    _check_rows(places, batch_size)
    _check_features(source, features)
    import grain

    def load(number: int) -> dict[str, np.ndarray]:
        examples = int(number) * batch_size + places
        index = np.array([order[int(k)] for k in examples])
        records = [source[int(i)] for i in index]
        images = np.stack([record["image"] for record in records])
        if augment is not None:
            images = augment(images, example_keys(seed, examples))
        batch = {"image": images.astype(np.float32), "index": index}
        if images.dtype == np.uint8:
            batch["image"] /= np.float32(127.5)  # in place: temporaries cost more than the sums
            batch["image"] -= np.float32(1)
        if source.classes is not None:
            batch["label"] = np.array([record["label"] for record in records], np.int32)
        for name in features:
            batch[name] = stacked([record[name] for record in records])
        return batch

    # Grain shuffles epoch e by seed + e: unhashed, epoch 1 of seed 0 would be epoch 0 of seed 1.
    hashed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    # An endless repeat() overflows Grain's length; 2**62 examples are endless enough.
    order = grain.MapDataset.range(len(source)).shuffle(seed=hashed).repeat(2**62 // len(source))
    loaded = grain.MapDataset.range(start, 2**62 // batch_size).map(load)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return Batches(iter(loaded.to_iter_dataset(ahead)), batch_size, start, places)


def local_rows(sharding: jax.sharding.Sharding, batch_size: int) -> np.ndarray:
    """The places in a global batch, ascending, that this process's devices hold.

    Raises:
      ValueError: the batch doesn't divide among the devices.
    """
    try:
        held = sharding.addressable_devices_indices_map((batch_size,))
    except ValueError as error:
        raise ValueError(
            f"a batch of {batch_size} doesn't divide among the devices of {sharding}"
        ) from error
    every = np.arange(batch_size)
    return np.unique(np.concatenate([every[index] for index in (held or {}).values()]))


def stacked(values: list[Any]) -> np.ndarray:
    """[b, ...] of one feature's values: float32, or int32 where they are whole."""
    array = np.stack([np.asarray(value) for value in values])
    return array.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int32)


class DeviceBatch(NamedTuple):
    """A batch on the devices."""

    number: int  # of the batch, counted from the start of training
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index; int64 [b]: record numbers of this process's part, on the host
    arrays: dict[str, jax.Array]  # image float32 [B, h, w, c], label int32 [B]: the global batch


def put_on_device(
    batches: Batches, sharding: jax.sharding.Sharding, ahead: int = 2
) -> Generator[DeviceBatch, None, None]:
    """Transfers batches to the devices, `ahead` of them before they are asked for.

    It takes `batches` over: since it runs ahead, resume from `number + 1` of the last batch used,
    never from `batches.position`, and closing it, or an exception in it (Ctrl-C, say), closes them.

    Args:
      sharding: of the first axis, at any rank: `NamedSharding(mesh, PartitionSpec("data"))`.

    Raises:
      ValueError: the batch doesn't divide among the devices, `batches` doesn't read the rows that
        these hold, or ahead < 0.
    """
    if ahead < 0:
        raise ValueError(f"ahead must be at least 0, not {ahead}")
    needed = local_rows(sharding, batches.batch_size)
    if not np.isin(needed, batches.rows).all():
        raise ValueError(
            f"the devices of {sharding} hold rows of the batch that aren't read; pass "
            "rows=local_rows(sharding, batch_size) to batches."
        )
    return _transfer(batches, sharding, ahead)


def _transfer(
    batches: Batches, sharding: jax.sharding.Sharding, ahead: int
) -> Generator[DeviceBatch, None, None]:
    every = np.arange(batches.batch_size)

    def put(local: np.ndarray) -> jax.Array:
        def held(index) -> np.ndarray:
            return local[np.searchsorted(batches.rows, every[index[0]])]

        return jax.make_array_from_callback((len(every), *local.shape[1:]), sharding, held)

    waiting: deque[DeviceBatch] = deque()
    try:
        for number, batch in zip(itertools.count(batches.position), batches):
            index = batch.pop("index")
            arrays = {key: put(value) for key, value in batch.items()}
            waiting.append(DeviceBatch(number, index, arrays))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting
    finally:
        batches.close()


def _check_features(source: Source, features: tuple[str, ...]) -> None:
    if not features:
        return
    record = source[0]
    for name in features:
        if name not in record:
            known = ", ".join(sorted(record))
            raise ValueError(f"{source.name} has no feature {name!r}; its records hold {known}")
        if not np.issubdtype(np.asarray(record[name]).dtype, np.number):
            raise ValueError(f"{source.name}: {name!r} holds no numbers; tokenize text first")


def _check_rows(places: np.ndarray, batch_size: int) -> None:
    rising = places.ndim == 1 and len(places) and (np.diff(places) > 0).all()
    if not rising or places[0] < 0 or places[-1] >= batch_size:
        raise ValueError(
            f"rows must ascend from 0 or more to less than the batch size of {batch_size}, "
            f"not {places.tolist()}"
        )


def _check(
    source: Source,
    batch_size: int,
    seed: int,
    start: int,
    threads: int,
) -> None:
    if len(source) == 0:
        raise ValueError(f"{source.name} has no records")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    for name, value in {"seed": seed, "start": start, "threads": threads}.items():
        if value < 0:
            raise ValueError(f"{name} must be at least 0, not {value}")
