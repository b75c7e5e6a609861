"""One step is profiled, where it was asked for, and nothing else changes."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from diffusion_jax.training.loop import Options, check_options
from diffusion_jax.training.tracing import traced


def test_one_call_is_profiled(tmp_path):
    step = traced(jax.jit(lambda x, y: (x + y, x * y)), 2, tmp_path)
    x, written = jnp.ones(3), []
    for _ in range(3):
        assert step(x, x)[0][0] == 2
        written.append(len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))))
    assert written == [0, 1, 1]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
def test_a_step_is_profiled_beside_the_libtpu_that_is_installed(tmp_path):
    """A libtpu of another series than JAX's takes the process with it."""
    program = (
        "import jax, pathlib, sys; from diffusion_jax.training import ahead, tracing;"
        "ahead.topology_devices('v5e:2x2');"
        "tracing.traced(jax.numpy.exp, 1, pathlib.Path(sys.argv[1]))(jax.numpy.ones(3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == 1


@pytest.mark.parametrize("name", ["trace_step", "workers"])
def test_numbers_below_zero_are_refused(name):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} is -1; .* at least 0"):
        check_options(Options(**{name: -1}))
