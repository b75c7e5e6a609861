"""The order of the data is a pure function of (seed, length, batch size), whoever reads it."""

import itertools
import time

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax.data import batches, digits, flip, from_arrays, in_memory, put_on_device

RECORDS = 37  # coprime to the batch sizes below, so batches cross the ends of epochs


def ramp(records=RECORDS):
    """A source whose picture names its record in every pixel, darker on its left half."""
    images = np.broadcast_to(
        np.arange(records, dtype=np.uint8)[:, None, None, None], (records, 4, 4, 1)
    ).copy()
    images[:, :, :2] += 100
    return from_arrays("ramp", images, np.arange(records) % 3)


def take(count, *args, **kwargs):
    reader = batches(*args, **kwargs)
    try:
        return list(itertools.islice(reader, count))
    finally:
        reader.close()


def indices(count, *args, **kwargs):
    return np.concatenate([batch["index"] for batch in take(count, *args, **kwargs)])


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_batch_holds_what_the_source_does():
    source = ramp()
    batch = take(1, source, 8, seed=0)[0]
    assert batch["image"].dtype == np.float32 and batch["image"].shape == (8, 4, 4, 1)
    assert batch["label"].dtype == np.int32 and batch["index"].dtype == np.int64
    for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
        record = source[int(index)]
        np.testing.assert_array_equal(image, record["image"] / np.float32(127.5) - np.float32(1))
        assert label == record["label"]


def test_images_span_minus_one_to_one():
    source = from_arrays("ends", np.array([0, 255], np.uint8)[:, None, None, None])
    image = take(1, source, 2, seed=0)[0]["image"]
    assert sorted(image.ravel()) == [-1, 1]


def test_no_labels_no_label():
    source = from_arrays("plain", np.zeros((3, 2, 2, 3), np.uint8))
    assert take(1, source, 2, seed=0)[0].keys() == {"image", "index"}


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("start", [0, 5])
def test_processes_share_out_the_same_batches(processes, start):
    def read(p, count):
        return take(
            12,
            ramp(),
            12,
            seed=3,
            start=start,
            rows=range(p * 12 // count, (p + 1) * 12 // count),
            augment=flip(),
        )

    parts = [read(p, processes) for p in range(processes)]
    joined = [
        {key: np.concatenate([part[key] for part in parts_of]) for key in parts_of[0]}
        for parts_of in zip(*parts, strict=True)
    ]
    assert_same(joined, read(0, 1))


@pytest.mark.parametrize("batch_size", [1, 5, 8, 100])
def test_every_record_once_an_epoch_and_nothing_dropped(batch_size):
    epochs = 3
    order = indices(-(-epochs * RECORDS // batch_size), ramp(), batch_size, seed=1)
    for epoch in range(epochs):
        seen = order[epoch * RECORDS : (epoch + 1) * RECORDS]
        assert sorted(seen) == list(range(RECORDS))


def test_the_order_does_not_depend_on_the_batch_size():
    assert (indices(6, ramp(), 20, seed=1) == indices(20, ramp(), 6, seed=1)).all()


def test_epochs_and_seeds_are_shuffled_apart():
    """Among them epoch 1 of seed 0 and epoch 0 of seed 1, which Grain would order alike."""
    orders = {
        (seed, epoch): tuple(indices(3, ramp(), RECORDS, seed=seed)[epoch * RECORDS :][:RECORDS])
        for seed in range(3)
        for epoch in range(3)
    }
    orders["in order"] = tuple(range(RECORDS))
    assert len(set(orders.values())) == len(orders)


def test_a_shuffle_reaches_everywhere():
    """A global shuffle: the first tenth of the epoch draws from the whole set evenly."""
    n = 5000
    first = indices(1, from_arrays("n", np.zeros((n, 1, 1, 1), np.uint8)), n // 10, seed=0)
    counts = np.histogram(first, bins=10, range=(0, n))[0]
    assert ((counts - 50) ** 2 / 50).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize("start", [1, 7, 30])
def test_starting_late_is_skipping(start):
    arguments = {"seed": 2, "augment": flip()}
    whole = take(start + 4, ramp(), 8, **arguments)
    assert_same(whole[start:], take(4, ramp(), 8, start=start, **arguments))


def test_starting_after_years_is_immediate():
    began = time.monotonic()
    take(1, ramp(), 64, seed=0, start=10**12)
    assert time.monotonic() - began < 5


def test_position_counts_the_batches_taken():
    reader = batches(ramp(), 8, seed=0, start=3)
    for expected in (3, 4, 5):
        assert reader.position == expected
        next(reader)
    reader.close()
    resumed = take(1, ramp(), 8, seed=0, start=reader.position)
    assert_same(resumed, take(7, ramp(), 8, seed=0)[6:])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_change_the_order(threads):
    class Uneven:
        """Records that take the longer, the sooner they come."""

        def __init__(self, source):
            self.name, self.image_shape, self.classes = (
                source.name,
                source.image_shape,
                source.classes,
            )
            self.source = source

        def __len__(self):
            return len(self.source)

        def __getitem__(self, i):
            time.sleep((i % 3) * 1e-3)
            return self.source[i]

    read = take(12, Uneven(ramp()), 4, seed=0, threads=threads, augment=flip())
    assert_same(read, take(12, ramp(), 4, seed=0, threads=0, augment=flip()))


def test_an_error_in_the_source_reaches_the_reader():
    class Broken:
        name, image_shape, classes = "broken", (1, 1, 1), None

        def __len__(self):
            return 4

        def __getitem__(self, i):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        take(1, Broken(), 2, seed=0)


def test_a_copy_in_memory_decodes_each_record_once():
    reads = []

    class Counting:
        def __init__(self, source):
            self.name, self.image_shape, self.classes = (
                source.name,
                source.image_shape,
                source.classes,
            )
            self.source = source

        def __len__(self):
            return len(self.source)

        def __getitem__(self, i):
            reads.append(i)
            return self.source[i] | {"caption": f"number {i}"}

    copy = in_memory(Counting(ramp()))
    assert not reads
    for _ in range(3):
        assert_same(take(10, copy, 8, seed=0, threads=0), take(10, ramp(), 8, seed=0))
    assert sorted(reads) == list(range(RECORDS))
    assert copy[5]["caption"] == "number 5"
    assert not copy[5]["image"].flags.writeable
    with pytest.raises(IndexError):
        copy[RECORDS]


class TestFlip:
    def test_pictures_are_flipped_or_not(self):
        source = ramp()
        flipped = []
        for batch in take(40, source, 8, seed=0, augment=flip()):
            for image, index in zip(batch["image"], batch["index"], strict=True):
                plain = source[int(index)]["image"] / np.float32(127.5) - np.float32(1)
                flipped.append((image == plain[:, ::-1]).all())
                assert flipped[-1] or (image == plain).all()
        assert abs(np.mean(flipped) - 0.5) < 4 * 0.5 / np.sqrt(320)

    def test_every_epoch_and_seed_flips_anew(self):
        def sides(seed):
            batch = take(4, ramp(), RECORDS, seed=seed, augment=flip())
            return [
                tuple((b["image"][:, 0, 0, 0] < b["image"][:, 0, -1, 0])[np.argsort(b["index"])])
                for b in batch
            ]

        drawn = sides(0) + sides(1)
        assert len(set(drawn)) == len(drawn)

    @pytest.mark.parametrize("probability", [0.0, 1.0])
    def test_never_and_always(self, probability):
        plain = take(3, ramp(), 8, seed=0)
        flipped = take(3, ramp(), 8, seed=0, augment=flip(probability))
        for a, b in zip(plain, flipped, strict=True):
            expected = a["image"][:, :, ::-1] if probability else a["image"]
            np.testing.assert_array_equal(b["image"], expected)

    def test_is_a_value(self):
        assert flip() == flip(0.5) and flip() != flip(0.1)

    def test_refuses_what_is_no_probability(self):
        with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], not 1.5"):
            flip(1.5)


class TestOnDevice:
    def sharding(self):
        return NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))

    @pytest.mark.parametrize("ahead", [0, 1, 3])
    def test_the_same_batches_in_the_same_order(self, ahead):
        stream = put_on_device(batches(ramp(), 8, seed=0, start=2), self.sharding(), ahead)
        on_host = take(5, ramp(), 8, seed=0, start=2)
        for number, expected in enumerate(on_host, start=2):
            batch = next(stream)
            assert batch.number == number
            assert isinstance(batch.index, np.ndarray)
            assert batch.arrays.keys() == {"image", "label"}
            assert all(array.sharding == self.sharding() for array in batch.arrays.values())
            assert_same([batch.arrays | {"index": batch.index}], [expected])
        stream.close()

    def test_stays_ahead(self):
        reader = batches(ramp(), 8, seed=0)
        stream = put_on_device(reader, self.sharding(), ahead=2)
        assert next(stream).number == 0
        assert reader.position == 3
        stream.close()

    def test_closing_closes_the_reader(self):
        reader = batches(ramp(), 8, seed=0)
        stream = put_on_device(reader, self.sharding())
        next(stream)
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            next(reader)

    def test_refuses_a_batch_that_does_not_divide_the_devices(self):
        class TwoDevices(jax.sharding.Sharding):
            def __repr__(self):
                return "two devices"

            def shard_shape(self, global_shape):
                if global_shape[0] % 2:
                    raise ValueError
                return (global_shape[0] // 2,)

        with pytest.raises(
            ValueError, match="a batch of 7 doesn't divide among the devices of two"
        ):
            put_on_device(batches(ramp(), 7, seed=0), TwoDevices())

    def test_refuses_to_lag(self):
        with pytest.raises(ValueError, match="ahead must be at least 0, not -1"):
            put_on_device(batches(ramp(), 8, seed=0), self.sharding(), ahead=-1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"source": ramp(0)}, "ramp has no records"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rows": [6, 7, 8]}, "rows must ascend .* less than the batch size of 8, not .6, 7, 8."),
        ({"rows": [1, 0]}, r"rows must ascend .* not .1, 0."),
        ({"rows": []}, "rows must ascend"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"start": -1}, "start must be at least 0, not -1"),
        ({"threads": -1}, "threads must be at least 0, not -1"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        batches(**({"source": ramp(), "batch_size": 8, "seed": 0} | arguments))


def test_digits_through_the_pipeline():
    batch = take(1, digits(), 32, seed=2**40)[0]
    assert batch["image"].min() == -1 and batch["image"].max() == 1
