"""Schedulers' configurations as our parts."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.interop.sd_original import _published
from diffusion_jax.interop.sd_plms import VelocityPLMS
from diffusion_jax.interop.sd_scheduler import in_pipeline, read_grid, read_walk
from diffusion_jax.interop.sd_system import walk_of
from diffusion_jax.interop.sd_table import read_trained
from diffusion_jax.interop.stable_diffusion import StableDiffusion
from diffusion_jax.samplers import bh1, published_third

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
V, KARRAS = {"prediction_type": "v_prediction"}, {"use_karras_sigmas": True}
DPM, UNIPC = (
    {"_class_name": f"{name}MultistepScheduler", **{k: SD15[k] for k in list(SD15)[1:5]}}
    for name in ("DPMSolver", "UniPC")
)
EULER = SD15 | {"_class_name": "EulerDiscreteScheduler"}
DDIM = SD15 | {"_class_name": "DDIMScheduler", "clip_sample": False}
TEXT = "StableDiffusionPipeline"


def test_stable_diffusion_1():
    found = read_trained(SD15)
    assert found.process == dj.Gaussian(dj.ScaledLinearBeta())
    assert found.parameterization == dj.Noise() and found.steps == 1000
    walk = read_walk(SD15, 4)
    assert walk.sampler == dj.PLMS()
    np.testing.assert_allclose(np.asarray(walk.times) * 1000, [752, 502, 252, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(walk.told(walk.times[:-1]), [751, 501, 251, 1], rtol=1e-4)


def test_pndm_of_v_extrapolates_v():
    assert read_walk(SD15 | V, 4).sampler == VelocityPLMS()


def test_v_prediction_that_ends_in_noise():
    config = DDIM | V | {
        "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": True,
    }  # fmt: skip
    found = read_trained(config)
    assert found.process == dj.Gaussian(dj.ZeroTerminalSNR(dj.ScaledLinearBeta()))
    assert found.parameterization == dj.V()
    walk = read_walk(config, 4)
    assert walk.sampler == dj.DDIM()
    np.testing.assert_allclose(np.asarray(walk.times), [1, 0.75, 0.5, 0.25, 0], rtol=1e-6)


def test_orders_and_forms_are_kept():
    third = functools.partial(dj.DPMSolverPP, 3, published_third)
    assert read_walk(DPM | {"solver_order": 3}, 14).sampler == third(lower_order_final=True)
    assert read_walk(DPM | {"solver_order": 3}, 15).sampler == third(lower_order_final=False)
    lowered = {"lower_order_final": False}
    assert read_walk(DPM | lowered, 4).sampler == dj.DPMSolverPP()
    assert read_walk(UNIPC, 50).sampler == dj.UniPC(2, lower_order_final=True)
    above = UNIPC | {"solver_type": "bh1", "final_sigmas_type": "sigma_min"} | lowered
    assert read_walk(above, 4).sampler == dj.UniPC(2, bh1)


@pytest.mark.parametrize("solver_type", ["logrho", "bh1", "bh2"])
def test_other_classes_solver_types_are_midpoint(solver_type):
    assert read_walk(DPM | {"solver_type": solver_type}, 20).sampler == dj.DPMSolverPP()


def test_linspace_of_eulers_is_between_entries():
    found = np.asarray(read_grid(EULER | {"set_alpha_to_one": True}, 4))
    np.testing.assert_allclose(found * 1000 - 1, [999, 666, 333, 0, -1], atol=1e-3)
    np.testing.assert_allclose(np.asarray(read_grid(EULER, 3))[1] * 1000 - 1, 499.5, rtol=1e-6)


STRAY = {"use_karras_sigmas": True, "thresholding": True, "solver_type": "new"}


@pytest.mark.parametrize("name", ["PNDM", "EulerAncestralDiscrete"])
def test_fields_that_a_class_lacks_change_nothing(name):
    plain = SD15 | {"_class_name": f"{name}Scheduler"}
    found = read_walk(plain | STRAY | {"final_sigmas_type": "sigma_min"}, 5)
    expected = read_walk(plain, 5)
    assert found.sampler == expected.sampler
    np.testing.assert_array_equal(found.times, expected.times)


def test_a_table_is_rescaled_where_the_class_knows_how():
    said = V | {"rescale_betas_zero_snr": True}
    assert read_trained(SD15 | said).process == dj.Gaussian(dj.ScaledLinearBeta())
    rescaled = dj.Gaussian(dj.ZeroTerminalSNR(dj.ScaledLinearBeta()))
    assert read_trained(EULER | said).process == rescaled
    assert read_trained(EULER | said | {"_class_name": "SomeScheduler"}).process == rescaled


def test_pipelines_correct_their_file():
    old = DDIM | {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}
    kept = old | {"steps_offset": 1}
    assert in_pipeline(old, TEXT) == kept | {"clip_sample": False}
    assert in_pipeline(old, "StableDiffusionImg2ImgPipeline") == kept | {"clip_sample": False}
    assert in_pipeline(old, "StableDiffusionInpaintPipeline") == kept | {"skip_prk_steps": True}
    assert in_pipeline(old, "StableDiffusionXLPipeline") == old


class Sized:
    """A U-Net of 1.x."""

    sizes = 0


def parts(scheduler, pipeline=TEXT):
    unet = dj.interop.sd_parts.Part(Sized(), {})
    return StableDiffusion(unet, unet, (), scheduler, {"_class_name": pipeline})


def test_a_system_walks_as_its_pipeline():
    old = DDIM | {"steps_offset": 0, "clip_sample": True}
    assert float(walk_of(parts(old), 4).times[0]) * 1000 == pytest.approx(752)
    with pytest.raises(ValueError, match=r"clip_sample is True, and only False .*--sampler"):
        walk_of(parts(old, "StableDiffusionXLPipeline"), 4)


@pytest.mark.parametrize(
    "more",
    [
        {"_class_name": "KDPM2DiscreteScheduler"},
        {"_class_name": "LMSDiscreteScheduler"},
        {"_class_name": None},
        {"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
    ],
)
def test_another_sampler_needs_no_more_than_the_table(more):
    with pytest.raises(ValueError, match="--sampler"):
        walk_of(parts(SD15 | more), 4)
    walk = walk_of(parts(SD15 | more), 4, dj.UniPC())
    assert walk.sampler == dj.UniPC() and walk.times.shape == (5,)
    assert read_trained(SD15 | more).process == dj.Gaussian(dj.ScaledLinearBeta())


@pytest.mark.parametrize("read", [lambda c, n: read_trained(c), read_walk, read_grid])
def test_nothing_said_is_refused(read):
    with pytest.raises(ValueError, match="nothing says how"):
        read({}, 4)


def test_an_unknown_class_has_to_say_its_table():
    with pytest.raises(ValueError, match=r"no beta_schedule, beta_start, beta_end, .*'FlowMatch"):
        read_trained({"_class_name": "FlowMatchEulerDiscreteScheduler"})


@pytest.mark.parametrize(("features", "prediction"), [(768, "epsilon"), (1024, "v_prediction")])
def test_a_single_file_has_its_familys_table(features, prediction):
    told = _published(features, jnp.float32).scheduler | {"prediction_type": prediction}
    found = read_trained(told)
    assert found.process == dj.Gaussian(dj.ScaledLinearBeta())
    assert found.parameterization == (dj.Noise() if prediction == "epsilon" else dj.V())
    assert read_walk(told, 4).times.shape == (5,)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prediction_type": "score"}, "prediction_type is 'score'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas aren't read"),
        (
            {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
            "goes with v_prediction or sample",
        ),
    ],
)
def test_training_that_is_not_known_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        read_trained(SD15 | more)


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (SD15, "skip_prk_steps", False),
        (SD15, "prediction_type", "sample"),
        (SD15, "timestep_spacing", "linspace"),
        (DDIM, "clip_sample", True),
        (DDIM, "thresholding", True),
        (EULER, "final_sigmas_type", "sigma_min"),
        (EULER, "interpolation_type", "log_linear"),
        (EULER, "use_exponential_sigmas", True),
        (EULER | V, "timestep_type", "continuous"),
        (EULER | KARRAS, "sigma_max", 10.0),
        (DPM, "algorithm_type", "sde-dpmsolver"),
        (DPM, "solver_type", "new"),
        (DPM, "use_lu_lambdas", True),
        (DPM, "lambda_min_clipped", -2.0),
        (DPM | {"final_sigmas_type": "sigma_min"}, "euler_at_final", True),
        (DPM | {"solver_type": "heun"}, "solver_order", 3),
        (DPM | {"beta_schedule": "squaredcos_cap_v2"}, "use_karras_sigmas", True),
        (UNIPC, "predict_x0", False),
        (UNIPC, "disable_corrector", [0]),
        (UNIPC, "lower_order_final", False),
        (UNIPC, "solver_type", "bh1"),
        (UNIPC, "solver_order", 4),
    ],
)
def test_what_changes_numbers_is_refused(config, field, value):
    with pytest.raises(ValueError, match=f"{field} is .*--sampler"):
        read_walk(config | {field: value}, 20)


def test_spacings_have_to_be_known():
    for read in (read_walk, read_grid):
        with pytest.raises(ValueError, match="timestep_spacing is 'log'"):
            read(EULER | {"timestep_spacing": "log"}, 4)


def test_a_clip_below_the_table_changes_nothing():
    assert read_walk(DPM | {"lambda_min_clipped": -5.1}, 20).sampler == dj.DPMSolverPP()
