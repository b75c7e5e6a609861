"""What must be said to XLA before its first computation."""

import importlib.util
import os
from pathlib import Path

import jax
import jaxlib

# Convolutions leave YNNPACK, which makes them about three times slower on CPU (measured with
# jaxlib 0.10.2); its reductions stay. A jaxlib that doesn't know the flag would abort.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
# What TPUs, and NVIDIA's and AMD's GPUs, look like on Linux.
_ACCELERATORS = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "dxg", "kfd")


def set_xla_flags() -> None:
    """Makes convolutions fast on CPU, unless the user set XLA_FLAGS. Call it first.

    Where libtpu is installed, to compile ahead, but the machine has neither TPU nor GPU, JAX is
    told so: it would load libtpu to look for a TPU, and that complains at length.
    """
    if jaxlib.version.__version_info__[:2] == (0, 10):
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAG)
    unasked = not jax.config.jax_platforms  # type: ignore[attr-defined]
    if unasked and importlib.util.find_spec("libtpu") and not has_accelerator(Path("/dev")):
        jax.config.update("jax_platforms", "cpu")


def has_accelerator(devices: Path) -> bool:
    """Whether a folder of device files has those of a TPU or a GPU."""
    return any(next(devices.glob(name), None) for name in _ACCELERATORS)
