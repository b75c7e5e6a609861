"""The prepared set of the shapes world holds the records of the computed one."""

import subprocess
import sys

import numpy as np
import pytest

from diffusion_jax.data import shapes, shapes_tfds, tfds_source

COUNTS = {"train": 20, "test": 8}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    shapes_tfds.prepare(folder, "32x32", **COUNTS, seed=3)
    return folder


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
        assert np.asarray(one[key]).dtype == np.asarray(other[key]).dtype


@pytest.mark.parametrize("split", COUNTS)
def test_reads_back(prepared, split):
    source, computed = tfds_source("shapes/32x32", split, prepared), shapes(split, 32, seed=3)
    assert len(source) == COUNTS[split]
    assert (source.image_shape, source.classes) == ((32, 32, 3), None)
    for i in range(len(source)):
        record = source[i]
        record["segmentation"] = record["segmentation"][..., 0]
        same(record, computed[i])


def test_preparing_twice_gives_the_same_records(prepared, tmp_path):
    shapes_tfds.prepare(tmp_path, "32x32", **COUNTS, seed=3)
    for split in COUNTS:
        one, two = (tfds_source("shapes/32x32", split, folder) for folder in (prepared, tmp_path))
        for i in range(len(one)):
            same(one[i], two[i])


def test_what_is_there_is_not_overwritten(prepared):
    with pytest.raises(FileExistsError, match=r"shapes/32x32/1\.0\.0 is already prepared"):
        shapes_tfds.prepare(prepared, "32x32", train=5, test=5)


def test_refuses_before_it_writes(tmp_path):
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        shapes_tfds.prepare(tmp_path, train=5, test=0)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path):
    module = [sys.executable, "-m", "diffusion_jax.data.shapes_tfds"]
    command = [*module, "--data-dir", str(tmp_path), "--train", "3", "--test", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    home = tmp_path / "shapes" / "16x16" / "1.0.0"
    assert done.stdout.endswith(f"\nwrote 3 train and 2 test records to {home}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"shapes"}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode and again.stderr.startswith(f"{home} is already prepared")
    (tmp_path / "file").touch()
    nowhere = [*module, "--data-dir", str(tmp_path / "file"), "--train", "3", "--test", "2"]
    refused = subprocess.run(nowhere, capture_output=True, text=True)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert f"Not a directory: '{tmp_path}/file/shapes'" in refused.stderr
    same(
        {"caption": tfds_source("shapes/16x16", "test", tmp_path)[1]["caption"]},
        {"caption": shapes("test")[1]["caption"]},
    )
