"""What is said to XLA, and what JAX is kept from."""

import importlib.util
import subprocess
import sys

import pytest

from diffusion_jax.training.platform import has_accelerator

LOOK = """
from diffusion_jax.training.platform import set_xla_flags
set_xla_flags()
import jax
print(jax.default_backend())
"""


@pytest.mark.parametrize("name", ["accel0", "vfio/3", "nvidia0", "kfd", "dxg"])
def test_device_files_tell_of_accelerators(tmp_path, name):
    (tmp_path / "vfio").mkdir()
    for other in ("null", "nvidiactl", "vfio/vfio", "dri"):
        (tmp_path / other).touch()
    assert not has_accelerator(tmp_path)
    (tmp_path / name).touch()
    assert has_accelerator(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_libtpu_without_a_tpu_says_nothing(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.strip() in ("cpu", "gpu", "tpu")
