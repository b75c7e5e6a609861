"""What each class of diffusers' schedulers makes of the fields of its file, as our samplers.

A field that a class doesn't have changes nothing; one whose value can't be followed is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_jax.interop.sd_plms import VelocityPLMS
from diffusion_jax.interop.sd_table import Config
from diffusion_jax.samplers import (
    DDIM,
    DEIS,
    PLMS,
    Ancestral,
    DPMSolverPP,
    DPMSolverPPSingle,
    Heun,
    UniPC,
    bh1,
    exact,
    midpoint,
    published_third,
)
from diffusion_jax.types import Sampler


@dataclass(frozen=True)
class Kind:
    """What a class of diffusers' makes of its file.

    Attributes:
        sampler: of the fields, defaults filled in, and n; None can't be followed.
        defaults: of fields that are read, where the file is silent.
        followed: field -> the values that can be followed.
        between: whether its "linspace" isn't rounded to entries of the table.
        solver: whether its grids are of one more step, with the time before last left out, and
            its Karras grids span the table, and tell the network rounded times.
        unclean: whether it always ends at the table's first entry.
    """

    sampler: Callable[[Config, int], Sampler] | None
    defaults: Mapping[str, Any]
    followed: Mapping[str, tuple[Any, ...]]
    between: bool = False
    solver: bool = False
    unclean: bool = False


_OFF = (False, None)
_ENDS = ("zero", "sigma_min")
ELSE = "--sampler names another way to sample"


def refused(field: str, value: Any, followed: str) -> ValueError:
    """What to raise for a field's value."""
    return ValueError(f"{field} is {value!r}, and only {followed} can be followed here; {ELSE}.")


def _multistep(config: Config, n: int) -> Sampler:
    order, lowers = config["solver_order"], config["lower_order_final"] and n < 15
    noisy = config["algorithm_type"] == "sde-dpmsolver++"
    heun = config["solver_type"] == "heun"
    if order == 3 and (heun or noisy):
        raise refused("solver_order", 3, "1 or 2, or midpoint steps of dpmsolver++")
    if config["euler_at_final"] and config["final_sigmas_type"] != "zero" and not lowers:
        raise refused("euler_at_final", True, "False, or final_sigmas_type zero")
    form = published_third if order == 3 else exact if heun else midpoint
    return DPMSolverPP(order, form, eta=1.0 if noisy else 0.0, lower_order_final=bool(lowers))


def _single_step(config: Config, n: int) -> Sampler:
    form = exact if config["solver_type"] == "heun" else midpoint
    noisy = config["algorithm_type"] == "sde-dpmsolver++"
    return DPMSolverPPSingle(config["solver_order"], form, eta=1.0 if noisy else 0.0)


def _deis(config: Config, n: int) -> Sampler:
    lowers = config["lower_order_final"] and n < 15
    return DEIS(config["solver_order"], lower_order_final=bool(lowers))


def _unipc(config: Config, n: int) -> Sampler:
    ends_clean = config["final_sigmas_type"] == "zero"
    if ends_clean and config["solver_type"] == "bh1":  # theirs is infinity times 0 there
        raise refused("solver_type", "bh1", "bh2, or final_sigmas_type sigma_min")
    lowers = bool(config["lower_order_final"])
    if ends_clean and not lowers:
        raise refused("lower_order_final", False, "True, or final_sigmas_type sigma_min")
    form = bh1 if config["solver_type"] == "bh1" else midpoint
    return UniPC(config["solver_order"], form, lower_order_final=lowers)


def _pndm(config: Config, n: int) -> Sampler:
    return VelocityPLMS() if config["prediction_type"] == "v_prediction" else PLMS()


_LEADING = {"timestep_spacing": "leading", "steps_offset": 0, "prediction_type": "epsilon"}
_GRID = ("timestep_spacing", "steps_offset")  # which the single-step solver doesn't have
_LINSPACE = _LEADING | {"timestep_spacing": "linspace"}
_KARRAS = _LINSPACE | {"use_karras_sigmas": False}
_LEVELS = {"use_exponential_sigmas": _OFF, "use_beta_sigmas": _OFF}
_SOLVED = _LEVELS | {"use_flow_sigmas": _OFF, "thresholding": _OFF}
_PIXELS = {"thresholding": _OFF, "clip_sample": _OFF}
# DDIM and PNDM step by T // n entries of the table, which is another grid than "linspace".
_EVEN = {"timestep_spacing": ("leading", "trailing")}
_DPM = {
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
}
# logrho, bh1 and bh2 are midpoint to these classes, and deis is dpmsolver++.
_DPM_FOLLOWED = _SOLVED | {
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"),
    "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
# Euler's method on x/alpha, in sigma/alpha, is DDIM's step, and its ancestral form that of eta = 1.
KINDS: Mapping[str, Kind] = {
    "DDIMScheduler": Kind(
        lambda config, n: DDIM(),
        _LEADING | {"clip_sample": True, "set_alpha_to_one": True},
        _PIXELS | _EVEN,
    ),
    "DDPMScheduler": Kind(
        lambda config, n: Ancestral(),
        _LEADING | {"clip_sample": True, "variance_type": "fixed_small"},
        _PIXELS | {"variance_type": ("fixed_small", "fixed_small_log")},
    ),
    "PNDMScheduler": Kind(
        _pndm,
        _LEADING | {"skip_prk_steps": False, "set_alpha_to_one": False},
        _EVEN | {"skip_prk_steps": (True,), "prediction_type": ("epsilon", "v_prediction")},
    ),
    "LMSDiscreteScheduler": Kind(None, _LINSPACE, {}, between=True),
    "EulerDiscreteScheduler": Kind(
        lambda config, n: DDIM(),
        _KARRAS
        | {
            "interpolation_type": "linear",
            "final_sigmas_type": "zero",
            "timestep_type": "discrete",
            "sigma_min": None,
            "sigma_max": None,
        },
        # Left above 0, x/alpha is what Euler's method ends with, and not x.
        _LEVELS | {"interpolation_type": ("linear",), "final_sigmas_type": ("zero",)},
        between=True,
    ),
    "EulerAncestralDiscreteScheduler": Kind(
        lambda config, n: DDIM(1.0), _LINSPACE, {}, between=True
    ),
    "HeunDiscreteScheduler": Kind(
        lambda config, n: Heun(), _KARRAS, _LEVELS | {"clip_sample": _OFF}, between=True
    ),
    "DPMSolverMultistepScheduler": Kind(
        _multistep,
        _KARRAS | _DPM | {"lower_order_final": True, "euler_at_final": False},
        _DPM_FOLLOWED
        | {"use_lu_lambdas": _OFF, "final_sigmas_type": _ENDS, "solver_order": (1, 2, 3)},
        solver=True,
    ),
    "DPMSolverSinglestepScheduler": Kind(
        _single_step,
        {key: value for key, value in (_KARRAS | _DPM).items() if key not in _GRID},
        _DPM_FOLLOWED
        | {
            "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
            "final_sigmas_type": ("zero",),
            "solver_order": (1, 2),
        },
        solver=True,
    ),
    "DEISMultistepScheduler": Kind(
        _deis,
        _KARRAS | {"solver_order": 2, "lower_order_final": True},
        _SOLVED | {"solver_order": (1, 2, 3)},
        solver=True,
        unclean=True,
    ),
    "UniPCMultistepScheduler": Kind(
        _unipc,
        _KARRAS
        | {
            "solver_order": 2,
            "solver_type": "bh2",
            "lower_order_final": True,
            "final_sigmas_type": "zero",
            "sigma_min": None,
            "sigma_max": None,
        },
        _SOLVED
        | {
            "solver_order": (1, 2, 3),
            "solver_type": ("bh1", "bh2", "midpoint", "heun", "logrho"),  # the last three are bh2
            "predict_x0": (True,),
            "disable_corrector": ([], None),
            "solver_p": (None,),
            "use_dynamic_shifting": _OFF,
            "final_sigmas_type": _ENDS,
        },
        solver=True,
    ),
}
UNKNOWN = Kind(None, _LEADING, {})
