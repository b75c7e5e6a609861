"""What must be said to XLA before its first computation."""

import os

import jaxlib

# Convolutions leave YNNPACK, which makes them about three times slower on CPU (measured with
# jaxlib 0.10.2); its reductions stay. A jaxlib that doesn't know the flag would abort.
_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"


def set_xla_flags() -> None:
    """Makes convolutions fast on CPU, unless the user set XLA_FLAGS. Call it first."""
    if jaxlib.version.__version_info__[:2] == (0, 10):
        os.environ.setdefault("XLA_FLAGS", _CPU_FLAG)
