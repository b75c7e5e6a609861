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

# Largest relative difference of losses and gradient norms over twenty steps, where sums run in
# another order. Measured on CPU: 6.3e-7 for the toy with Adam, 1.8e-7 for the DiT; for the U-Net,
# whose norms magnify rounding, 2.5e-5 for the loss and 5.3e-4 for the norm.
TRAINING = {"trained": 1e-5, "dit": 1e-5, "unet": 5e-3}


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


def test_training_on_any_mesh_is_the_same_up_to_rounding(measured):
    for name, tolerance in TRAINING.items():
        one, *more = measured[name]
        for other in more:
            np.testing.assert_allclose(other["losses"], one["losses"], rtol=tolerance, err_msg=name)


def test_batches_are_bit_identical_on_any_mesh(measured):
    assert len({run["batches"] for run in measured["trained"]}) == 1


def test_a_step_compiles_once_on_any_mesh(measured):
    assert [run["compiled"] for run in measured["trained"]] == [1] * len(measured["trained"])


def test_a_checkpoint_of_eight_devices_is_equal_in_every_bit_on_others(measured):
    assert measured["restored"] == [True] * 4


def test_fsdp_and_tensor_cut_the_state(measured):
    whole, two, four, eight, fsdp_2, both, fsdp_8 = [r["share"] for r in measured["trained"]]
    assert whole == two == four == eight == 1
    assert fsdp_2 < 0.7 and both < 0.7 and fsdp_8 < 0.4
    assert measured["unet"][1]["share"] < 0.35 and measured["dit"][1]["share"] < 0.35
