"""The same seed, the same picture: for any number asked for, batch size and device count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

# Largest difference between pictures in [-1, 1] for other batch sizes and device counts, where
# sums may run in another order. Measured on CPU: 2.4e-7 for a batch of 1, none for devices.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def measured():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.on_eight_devices"],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_number_asked_for_changes_no_bit(measured):
    assert measured["num_identical"]
    assert measured["not_clipped"] > 0.5  # clipped pixels would agree whatever happened


def test_noise_is_bit_identical_everywhere(measured):
    assert measured["noise_identical"] and measured["alone_noise_identical"]


def test_batch_size_and_devices_change_rounding_only(measured):
    assert measured["batch_1"] <= TOLERANCE, measured
    assert max(measured["devices"].values()) <= TOLERANCE, measured


def test_training_on_more_devices_is_the_same_up_to_rounding(measured):
    one, *more = np.array(measured["loss"])
    for other in more:
        np.testing.assert_allclose(other, one, rtol=1e-5)
