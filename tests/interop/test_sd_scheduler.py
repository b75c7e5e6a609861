"""Schedulers' configurations as our parts."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.interop.sd_original import _published
from diffusion_jax.interop.sd_scheduler import read_scheduler

SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def test_stable_diffusion_1():
    found = read_scheduler(SD15)
    assert found.process == dj.Gaussian(dj.ScaledLinearBeta())
    assert found.parameterization == dj.Noise() and found.sampler == dj.PLMS()
    grid = np.asarray(found.grid(4)) * 1000
    np.testing.assert_allclose(grid, [752, 502, 252, 2, 1], rtol=1e-6)


def test_v_prediction_that_ends_in_noise():
    config = SD15 | {
        "_class_name": "DDIMScheduler", "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": True,
    }  # fmt: skip
    found = read_scheduler(config)
    assert found.process == dj.Gaussian(dj.ZeroTerminalSNR(dj.ScaledLinearBeta()))
    assert found.parameterization == dj.V() and found.sampler == dj.DDIM()
    np.testing.assert_allclose(np.asarray(found.grid(4)), [1, 0.75, 0.5, 0.25, 0], rtol=1e-6)


def test_an_order_is_kept():
    config = {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}
    assert read_scheduler(config).sampler == dj.DPMSolverPP(order=3)


def test_nothing_said_is_refused():
    with pytest.raises(ValueError, match="nothing says how"):
        read_scheduler({})


@pytest.mark.parametrize(("features", "prediction"), [(768, "epsilon"), (1024, "v_prediction")])
def test_a_single_file_has_its_familys_table(features, prediction):
    told = _published(features, jnp.float32).scheduler | {"prediction_type": prediction}
    found = read_scheduler(told)
    assert found.process == dj.Gaussian(dj.ScaledLinearBeta())
    assert found.parameterization == (dj.Noise() if prediction == "epsilon" else dj.V())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "'ScoreSdeVeScheduler' isn't known"),
        ({"prediction_type": "score"}, "prediction_type is 'score'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ({"timestep_spacing": "log"}, "timestep_spacing is 'log'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas aren't read"),
        ({"rescale_betas_zero_snr": True}, "goes with v_prediction or sample"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True, which isn't followed"),
        ({"algorithm_type": "sde-dpmsolver++"}, "algorithm_type is 'sde-dpmsolver"),
        ({"skip_prk_steps": False}, "skip_prk_steps is False"),
    ],
)
def test_what_is_not_known_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        read_scheduler(SD15 | more)
