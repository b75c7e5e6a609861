"""Sources give what they say, and say what is missing."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from diffusion_jax.data import Source, batches, digits, from_arrays, in_memory, tfds_source


def test_importing_the_package_loads_no_data_library():
    heavy = (
        "{'grain', 'tensorflow_datasets', 'sklearn', 'PIL', 'tensorflow', 'etils', 'ftfy', 'regex'}"
    )
    code = f"import sys, diffusion_jax.data; print(sorted({heavy} & set(sys.modules)))"
    # JAX, Flax and Optax may load some of these themselves.
    before = f"import sys, jax, numpy, diffusion_jax; print(sorted({heavy} & set(sys.modules)))"
    outputs = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (code, before)
    ]
    assert outputs[0] == outputs[1]


class TestDigits:
    def test_is_a_source(self):
        source = digits()
        assert isinstance(source, Source)
        assert source.image_shape == (8, 8, 1) and source.classes == 10
        assert source[0]["image"].shape == (8, 8, 1) and source[0]["image"].dtype == np.uint8
        assert isinstance(source[0]["label"], int)

    def test_splits_share_out_every_picture(self):
        from sklearn.datasets import load_digits

        def key(image, label):
            return (image.tobytes(), int(label))

        whole = load_digits()
        levels = [
            key(x.astype(np.uint8), y) for x, y in zip(whole.images, whole.target, strict=True)
        ]
        found = []
        for split, count in (("train", 1201), ("test", 596)):
            source = digits(split)
            assert len(source) == count
            for i in range(count):
                restored = np.rint(source[i]["image"][..., 0] * (16 / 255)).astype(np.uint8)
                found.append(key(restored, source[i]["label"]))
        assert Counter(found) == Counter(levels)  # every level restored, each picture in one split

    def test_splits_are_stratified(self):
        train, test = (
            np.bincount([source[i]["label"] for i in range(len(source))])
            for source in (digits("train"), digits("test"))
        )
        assert (np.abs(test - (train + test) / 3) < 1).all()

    def test_uses_the_whole_range(self):
        values = {int(v) for i in range(100) for v in digits()[i]["image"].ravel()}
        assert {0, 255} <= values and len(values) == 17

    def test_refuses_other_splits(self):
        with pytest.raises(ValueError, match="'train' and 'test', not 'validation'"):
            digits("validation")


class TestArrays:
    images = np.zeros((4, 2, 2, 3), np.uint8)

    @pytest.mark.parametrize(
        ("images", "labels", "sentence"),
        [
            (images.astype(np.float32), None, r"uint8 \[n, h, w, c\], not float32 \[4, 2, 2, 3\]"),
            (images[0], None, r"uint8 \[n, h, w, c\], not uint8 \[2, 2, 3\]"),
            (images, np.zeros(3, int), "labels must be 4 integers"),
            (images, np.zeros(4), "labels must be 4 integers, .*not float64"),
            (images, np.array([0, 1, 2, -1]), r"labels must be in 0\.\.2, but they span -1\.\.2"),
        ],
    )
    def test_refusals(self, images, labels, sentence):
        with pytest.raises(ValueError, match=sentence):
            from_arrays("mine", images, labels)

    def test_refuses_labels_beyond_the_classes(self):
        with pytest.raises(
            ValueError, match=r"mine: labels must be in 0\.\.2, but they span 0\.\.3"
        ):
            from_arrays("mine", self.images, np.arange(4), classes=3)

    def test_the_arrays_are_safe_from_the_reader(self):
        with pytest.raises(ValueError, match="read-only"):
            from_arrays("mine", self.images)[0]["image"][:] = 1
        self.images[:] = 0  # and still the owner's

    def test_a_copy_in_memory_has_a_limit(self):
        with pytest.raises(ValueError, match=r"mine: .* exceed the limit of 0\.00 MiB"):
            in_memory(from_arrays("mine", self.images), limit=47)
        assert len(in_memory(from_arrays("mine", self.images), limit=48)) == 4


class TestPrepared:
    """Sets on disk. The test machine has them beside the checkout; elsewhere these are skipped."""

    @pytest.mark.parametrize(
        ("name", "shape", "classes", "train", "test"),
        [
            ("mnist", (28, 28, 1), 10, 60_000, 10_000),
            ("fashion_mnist", (28, 28, 1), 10, 60_000, 10_000),
            ("emoji64", (64, 64, 3), 9, 5_792, 310),
        ],
    )
    def test_reads(self, shared_data, name, shape, classes, train, test):
        source = tfds_source(name, "train", shared_data)
        assert isinstance(source, Source)
        assert (source.name, source.image_shape, source.classes) == (name, shape, classes)
        assert len(source) == train and len(tfds_source(name, "test", shared_data)) == test
        for i in (0, train // 2, train - 1):
            record = source[i]
            assert record["image"].shape == shape and record["image"].dtype == np.uint8
            assert 0 <= record["label"] < classes

    def test_parts_versions_and_captions(self, shared_data):
        part = tfds_source("emoji64:1.0.0", "test[:10%]", shared_data)
        assert len(part) == 31
        assert isinstance(part[0]["caption"], str) and part[0]["label"] == part[0]["group"]

    def test_another_feature_as_the_label(self, shared_data):
        source = tfds_source("emoji64", "test", shared_data, label="style")
        assert source.classes == 4 and source[0]["label"] == source[0]["style"]
        with pytest.raises(ValueError, match="no class feature 'colour'; it has group, style"):
            tfds_source("emoji64", "test", shared_data, label="colour")

    def test_the_folder_comes_from_the_environment(self, shared_data, monkeypatch, tmp_path):
        monkeypatch.setenv("TFDS_DATA_DIR", str(shared_data))
        monkeypatch.delenv("DIFFUSION_JAX_DATA", raising=False)
        assert len(tfds_source("mnist", "test")) == 10_000
        monkeypatch.setenv("DIFFUSION_JAX_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError):
            tfds_source("mnist", "test")

    def test_reading_from_threads(self, shared_data):
        source = tfds_source("mnist", "test", shared_data)
        with ThreadPoolExecutor(4) as pool:
            threaded = list(pool.map(source.__getitem__, range(64)))
        for i, record in enumerate(threaded):
            np.testing.assert_array_equal(record["image"], source[i]["image"])
            assert record["label"] == source[i]["label"]

    def test_batches(self, shared_data):
        reader = batches(in_memory(tfds_source("emoji64", "test", shared_data)), 16, seed=0)
        assert next(reader)["image"].shape == (16, 64, 64, 3)
        reader.close()

    def test_says_nothing(self, shared_data):
        code = (
            "from diffusion_jax.data import tfds_source;"
            f"print(tfds_source('mnist', 'test', {str(shared_data)!r})[0]['label'])"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().isdigit() and done.stderr == ""

    def test_an_unknown_split(self, shared_data):
        with pytest.raises(
            ValueError, match="mnist has no split 'val'; its splits are 'train', 'test'"
        ):
            tfds_source("mnist", "val", shared_data)

    def test_an_unknown_version(self, shared_data):
        with pytest.raises(FileNotFoundError, match=r"holds mnist in version 3\.0\.1, not 9\.9\.9"):
            tfds_source("mnist:9.9.9", "train", shared_data)

    def test_a_missing_set(self, shared_data):
        with pytest.raises(FileNotFoundError) as caught:
            tfds_source("cifar10", "train", shared_data)
        message = str(caught.value)
        assert message.startswith(f"data set 'cifar10' is not in {shared_data} ")
        assert "emoji64, fashion_mnist, mnist" in message
        assert "pip install 'diffusion_jax[tfds]'" in message
        assert f"tfds build cifar10 --data_dir {shared_data} --file_format array_record" in message


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        tfds_source("mnist", "train", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="which holds no set"):
        tfds_source("mnist", "train", tmp_path)


def write_info(folder, *, shape=(4, 4, 1), file_format="array_record"):
    """The metadata of a set with no records, as TFDS writes it."""
    folder.mkdir(parents=True)
    feature = "tensorflow_datasets.core.features"
    image = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": "uint8"}
    features = {
        "pythonClassName": f"{feature}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {"pythonClassName": f"{feature}.image_feature.Image", "image": image}
            }
        },
    }
    split = {"name": "train", "shardLengths": ["0"], "numBytes": "0"}
    info = {"name": "blank", "version": folder.name, "fileFormat": file_format, "splits": [split]}
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(info))


def test_a_format_that_needs_tensorflow(tmp_path):
    write_info(tmp_path / "blank" / "1.0.0", file_format="tfrecord")
    with pytest.raises(
        ValueError, match="only TensorFlow reads; prepare it again with `tfds build blank"
    ):
        tfds_source("blank", "train", tmp_path)


def test_images_without_one_size(tmp_path):
    write_info(tmp_path / "blank" / "1.0.0", shape=(-1, -1, 3))
    with pytest.raises(ValueError, match=r"uint8 of one size .*not uint8 \[None, None, 3\]"):
        tfds_source("blank", "train", tmp_path)


def test_the_newest_whole_version_is_read(tmp_path):
    for version in ("2.0.0", "10.0.0"):
        write_info(tmp_path / "blank" / "small" / version, file_format="tfrecord")
    (tmp_path / "blank" / "small" / "11.0.0").mkdir()  # being prepared, or given up
    with pytest.raises(ValueError, match=r"10\.0\.0 is stored"):
        tfds_source("blank/small", "train", tmp_path)
    with pytest.raises(FileNotFoundError, match="which holds blank/small"):
        tfds_source("blank", "train", tmp_path)
