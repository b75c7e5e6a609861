"""The times that scheduler_config.json names against diffusers' own."""

import diffusers
import numpy as np
import pytest

from diffusion_jax.interop.sd_scheduler import read_scheduler

TABLE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
}
CLASSES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)


@pytest.mark.parametrize("n", [4, 7, 20])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", CLASSES)
def test_times(name, spacing, n):
    theirs = getattr(diffusers, name)(**TABLE, timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(n)
    found = read_scheduler({**theirs.config, "_class_name": name})
    ours = np.asarray(found.grid(n))[:-1] * 1000 - 1
    rounded = 0.5 if "Euler" in name else 1e-3  # Euler's are between entries of the table
    np.testing.assert_allclose(ours, theirs.timesteps.numpy(), atol=rounded)
