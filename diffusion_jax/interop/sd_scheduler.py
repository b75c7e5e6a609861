"""A checkpoint's scheduler_config.json as a process, a parameterization, a grid and a sampler.

The file is diffusers'; what it leaves out is what the class it names takes by default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.parameterizations import X0, Noise, V
from diffusion_jax.processes import Gaussian
from diffusion_jax.samplers import DDIM, PLMS, Ancestral, DPMSolverPP, UniPC
from diffusion_jax.schedules import CosineBeta, LinearBeta, ScaledLinearBeta, ZeroTerminalSNR
from diffusion_jax.timesteps import leading, linspace, trailing
from diffusion_jax.types import Parameterization, Sampler


class Scheduled(NamedTuple):
    """How a checkpoint was trained, and how its authors sample.

    Attributes:
        process: with the table of betas.
        parameterization: what the network predicts.
        grid: n -> the n + 1 times of sampling.
        sampler: the authors'.
        steps: length T of the table.
    """

    process: Gaussian
    parameterization: Parameterization
    grid: Callable[[int], Array]
    sampler: Sampler
    steps: int


_PREDICTIONS: Mapping[str, Parameterization] = {
    "epsilon": Noise(),
    "v_prediction": V(),
    "sample": X0(),
}
_SPACINGS = ("leading", "linspace", "trailing")
# The class a file names -> (what its grid is by default, our sampler from the file). Euler's method
# on x/alpha, in sigma/alpha, is DDIM's step, and its ancestral form DDIM's with eta = 1.
_CLASSES: Mapping[str, tuple[str, Any]] = {
    "DDIMScheduler": ("leading", lambda config: DDIM()),
    "DDPMScheduler": ("leading", lambda config: Ancestral()),
    "PNDMScheduler": ("leading", lambda config: PLMS()),
    "LMSDiscreteScheduler": ("linspace", lambda config: DDIM()),
    "EulerDiscreteScheduler": ("linspace", lambda config: DDIM()),
    "EulerAncestralDiscreteScheduler": ("linspace", lambda config: DDIM(1.0)),
    "DPMSolverMultistepScheduler": (
        "linspace",
        lambda config: DPMSolverPP(order=config.get("solver_order", 2)),
    ),
    "UniPCMultistepScheduler": (
        "linspace",
        lambda config: UniPC(order=config.get("solver_order", 2)),
    ),
}


# Fields that change what is drawn, and the values that are followed here.
_FOLLOWED: Mapping[str, tuple[Any, ...]] = {
    **{
        f"use_{kind}": (False, None)
        for kind in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
    },
    "use_flow_sigmas": (False, None),
    "thresholding": (False, None),
    "algorithm_type": ("dpmsolver++", None),
    "solver_type": ("midpoint", "bh2", None),
    "variance_type": ("fixed_small", "fixed_small_log", None),
}
# Multistep solvers of diffusers' make a grid of one more step, and leave out the one before last.
_INNER = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


def read_scheduler(config: Mapping[str, Any]) -> Scheduled:
    """The parts that a scheduler's configuration stands for.

    LMS, a multistep method on the same lines, is answered by DDIM, of first order; `clip_sample` is
    for pixels, and not followed.

    Args:
        config: of scheduler_config.json.

    Raises:
        ValueError: nothing is said, or a class, a table, a prediction or an option that isn't here.
    """
    if not config:
        raise ValueError("nothing says how this checkpoint was trained: it has no scheduler.")
    name = config.get("_class_name", "DDIMScheduler")
    if name not in _CLASSES:
        raise ValueError(
            f"the scheduler {name!r} isn't known here; {', '.join(sorted(_CLASSES))} are."
        )
    for field, values in _FOLLOWED.items():
        if config.get(field) not in values and field in config:
            raise ValueError(
                f"{field} is {config[field]!r}, which isn't followed here; "
                f"{' or '.join(repr(value) for value in values if value is not None)} is."
            )
    if name == "PNDMScheduler" and not config.get("skip_prk_steps", False):
        raise ValueError("skip_prk_steps is False: Runge-Kutta steps aren't followed here.")
    spacing, make = _CLASSES[name]
    steps = int(config.get("num_train_timesteps", 1000))
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ValueError(
            f"prediction_type is {prediction!r}; {', '.join(_PREDICTIONS)} are known here."
        )
    spacing = config.get("timestep_spacing", spacing)
    if spacing not in _SPACINGS:
        raise ValueError(f"timestep_spacing is {spacing!r}; {', '.join(_SPACINGS)} are known here.")
    zero = bool(config.get("rescale_betas_zero_snr", False))
    if zero and prediction == "epsilon":
        raise ValueError(
            "rescale_betas_zero_snr goes with v_prediction or sample: where nothing is left of a "
            "picture, its noise says nothing of it."
        )
    table = _table(config, steps)
    grid = functools.partial(
        _grid,
        spacing=spacing,
        steps=steps,
        offset=int(config.get("steps_offset", 0)),
        clean=_ends_clean(name, config),
        inner=name in _INNER and spacing != "trailing",
    )
    return Scheduled(
        process=Gaussian(ZeroTerminalSNR(table) if zero else table),
        parameterization=_PREDICTIONS[prediction],
        grid=grid,
        sampler=make(config),
        steps=steps,
    )


def _table(config: Mapping[str, Any], steps: int) -> Any:
    if config.get("trained_betas") is not None:
        raise ValueError("trained_betas aren't read; only tables that have a name.")
    kind = config.get("beta_schedule", "linear")
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    match kind:
        case "linear":
            return LinearBeta(steps, start, end)
        case "scaled_linear":
            return ScaledLinearBeta(steps, start, end)
        case "squaredcos_cap_v2":
            return CosineBeta(steps)
    raise ValueError(
        f"beta_schedule is {kind!r}; linear, scaled_linear and squaredcos_cap_v2 are known here."
    )


def _ends_clean(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the last step ends in a clean picture, and not at the table's first entry."""
    if name == "DDIMScheduler":
        return bool(config.get("set_alpha_to_one", True))
    if name == "PNDMScheduler":
        return bool(config.get("set_alpha_to_one", False))
    if name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        return config.get("final_sigmas_type", "zero") == "zero"
    return True


def _grid(
    n: int, *, spacing: str, steps: int, offset: int, clean: bool, inner: bool
) -> Float[Array, " {n}+1"]:
    """n + 1 times of a table, by a name of diffusers'."""
    match spacing:
        case "leading":
            times = leading(n + inner, steps, offset)
        case "trailing":
            times = trailing(n, steps)
        case _:
            times = linspace(n + inner, steps)
    if inner:
        times = jnp.concatenate([times[:-2], times[-1:]])
    return times if clean else times.at[-1].set(jnp.float32(np.float32(1 / steps)))
