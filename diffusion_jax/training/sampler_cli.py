"""The samplers and grids that sample.py knows by name, and the flags that adjust them."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Literal

from diffusion_jax import samplers, timesteps, variances
from diffusion_jax.training.experiment import Experiment, Grid
from diffusion_jax.training.terminals import FromNoise
from diffusion_jax.types import GaussianProcess, Process, Sampler

SamplerName = Literal[
    "recipe", "ddim", "ancestral", "euler", "heun", "edm", "dpm_solver", "dpm_solver_single",
    "unipc", "deis", "pndm", "plms", "adaptive", "euler_maruyama", "predictor_corrector",
    "langevin", "consistency", "heat", "momentum", "cold", "cold_naive",
]  # fmt: skip
VarianceName = Literal["fixed_small", "fixed_large", "learned_range"]
GridName = Literal["recipe", "trailing", "leading", "linspace", "quadratic", "karras"]

VARIANCES: dict[str, variances.Variance] = {
    "fixed_small": variances.fixed_small,
    "fixed_large": variances.fixed_large,
    "learned_range": variances.learned_range,
}
# A maker's parameters are the flags that belong to the sampler.
COLD: dict[str, Callable[..., Sampler]] = {
    "cold": samplers.ColdImproved,
    "cold_naive": samplers.ColdNaive,
}
GAUSSIAN: dict[str, Callable[..., Sampler]] = {
    "ddim": lambda eta=0.0: samplers.DDIM(eta),
    "ancestral": lambda variance="fixed_small": samplers.Ancestral(VARIANCES[variance]),
    "euler": samplers.Euler,
    "heun": samplers.Heun,
    "edm": lambda churn=0.0: samplers.Churn(churn),
    "dpm_solver": lambda order=2, eta=0.0: samplers.DPMSolverPP(order, eta=eta),
    "dpm_solver_single": lambda order=2, eta=0.0: samplers.DPMSolverPPSingle(order, eta=eta),
    "unipc": lambda order=2: samplers.UniPC(order),
    "deis": lambda order=3: samplers.DEIS(order),
    "pndm": samplers.PNDM,
    "plms": samplers.PLMS,
    "adaptive": samplers.Adaptive,
    "euler_maruyama": samplers.EulerMaruyama,
    "predictor_corrector": samplers.PredictorCorrector,
    "langevin": samplers.Langevin,
    "consistency": samplers.Consistency,
    "heat": lambda delta=0.025: samplers.Heat(delta),
    "momentum": lambda eta=1.0: samplers.Momentum(eta),
}
GRIDS: dict[str, Grid] = {
    "trailing": timesteps.trailing,
    "leading": timesteps.leading,
    "linspace": timesteps.linspace,
    "quadratic": timesteps.quadratic,
}
NOISE_LEVELS = {"karras": timesteps.karras}


def choose_sampler(experiment: Experiment, name: str, flags: Mapping[str, object]) -> Sampler:
    """The sampler of this name, adjusted by the flags that aren't None.

    Raises:
        ValueError: a flag is out of place or out of range, or the sampler doesn't go with the
            recipe.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    makers, own = COLD | GAUSSIAN, type(experiment.sampler)
    if name == "recipe" and given:
        name = next((n for n, make in makers.items() if type(make()) is own), name)
    fits = flags_of(makers[name]) if name in makers else ()
    for flag, value in given.items():
        if flag not in fits:
            owners = " or ".join(n for n in makers if flag in flags_of(makers[n]))
            raise ValueError(f"--{flag} is {value}; it belongs to --sampler {owners}.")
        most = 1.0 if flag == "eta" and name in ("ddim", "momentum") else math.inf
        if isinstance(value, float) and not (0 <= value <= most and value < math.inf):
            bounds = "from 0 to 1" if most == 1 else "at least 0"
            raise ValueError(f"--{flag} is {value}; it must be a number {bounds}.")
    if name == "recipe":
        return experiment.sampler
    sampler = makers[name](**given)
    if name in GAUSSIAN and type(sampler) is not own:
        _check_goes_with(experiment, name)
    return sampler


def _check_goes_with(experiment: Experiment, name: str) -> None:
    process, others = experiment.process, " or ".join(COLD)
    if not isinstance(process, GaussianProcess):
        raise ValueError(
            f"--sampler {name} needs alpha and sigma, and {process} has none; use {others}."
        )
    if name == "heat" or not isinstance(experiment.terminal, FromNoise):
        raise ValueError(
            f"--sampler {name} doesn't go with this recipe, whose x_1 comes from "
            f"{experiment.terminal}; use its own, {experiment.sampler}, or {others}."
        )


def choose_grid(process: Process, name: str, default: Grid) -> Grid:
    """The rule n -> times of this name; "recipe" is the default.

    Raises:
        ValueError: the grid is one of noise levels, and the process has none.
    """
    if name in NOISE_LEVELS:
        if not isinstance(process, GaussianProcess):
            raise ValueError(f"--grid {name} needs noise levels; {process} has none.")
        return functools.partial(NOISE_LEVELS[name], process=process)
    return GRIDS.get(name, default)


def flags_of(maker: Callable[..., Sampler]) -> tuple[str, ...]:
    """The names of a maker's flags; a class's fields aren't flags."""
    return () if inspect.isclass(maker) else tuple(inspect.signature(maker).parameters)
