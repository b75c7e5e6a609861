"""Models of latents and of codes on two devices: what one device computes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.training.latent.conftest import ROOT


@pytest.fixture(scope="module")
def measured(folder):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.latent.on_two_devices"],
        cwd=folder, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_codec_and_model_in_one_step_train_alike(measured):
    one, two, cut = measured["losses"]
    assert len(one) >= 1
    np.testing.assert_allclose(two, one, rtol=1e-5)
    np.testing.assert_allclose(cut, one, rtol=1e-5)


def test_what_is_drawn_is_alike(measured):
    assert measured["latents"] < 1e-5 and measured["codes"] < 1e-5, measured
