"""What a checkpoint's scheduler_config.json says of its training: the table and the prediction.

The file is diffusers'; what it leaves out is what the class it names takes by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from diffusion_jax.parameterizations import X0, Noise, V
from diffusion_jax.processes import Gaussian
from diffusion_jax.schedules import CosineBeta, LinearBeta, ScaledLinearBeta, ZeroTerminalSNR
from diffusion_jax.types import Parameterization

Config = Mapping[str, Any]


class Trained(NamedTuple):
    """How a checkpoint was trained.

    Attributes:
        process: with the table of betas.
        parameterization: what the network predicts.
        steps: length T of the table.
    """

    process: Gaussian
    parameterization: Parameterization
    steps: int


PREDICTIONS: Mapping[str, Parameterization] = {
    "epsilon": Noise(),
    "v_prediction": V(),
    "sample": X0(),
}
# The betas that a class takes where a file names none, beside 1000 of "linear".
_DDPM, _LATENT = (1e-4, 0.02), (0.00085, 0.012)
_BETAS: Mapping[str, tuple[float, float]] = {
    "DDIMScheduler": _DDPM,
    "DDPMScheduler": _DDPM,
    "PNDMScheduler": _DDPM,
    "LMSDiscreteScheduler": _DDPM,
    "EulerDiscreteScheduler": _DDPM,
    "EulerAncestralDiscreteScheduler": _DDPM,
    "HeunDiscreteScheduler": _LATENT,
    "DPMSolverMultistepScheduler": _DDPM,
    "DPMSolverSinglestepScheduler": _DDPM,
    "DEISMultistepScheduler": _DDPM,
    "UniPCMultistepScheduler": _DDPM,
}
# Of those, the ones that have no rescale_betas_zero_snr: in their files it changes nothing.
_NEVER_RESCALE = (
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
)


def class_of(config: Config) -> str | None:
    """The class that a configuration names.

    Raises:
        ValueError: nothing is said at all.
    """
    if not config:
        raise ValueError("nothing says how this checkpoint was trained: it has no scheduler.")
    return config.get("_class_name")


def is_rescaled(config: Config) -> bool:
    """Whether the table ends in pure noise."""
    rescaled = bool(config.get("rescale_betas_zero_snr"))
    return rescaled and class_of(config) not in _NEVER_RESCALE


def read_trained(config: Config) -> Trained:
    """Table and prediction; how the class it names would sample doesn't matter.

    Args:
        config: of scheduler_config.json.

    Raises:
        ValueError: nothing is said, a table or a prediction that isn't here, or a class whose
            defaults aren't known here in a file that leaves betas out.
    """
    name = class_of(config)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction_type is {prediction!r}; {', '.join(PREDICTIONS)} are known here."
        )
    zero = is_rescaled(config)
    if zero and prediction == "epsilon":
        raise ValueError(
            "rescale_betas_zero_snr goes with v_prediction or sample: where nothing is left of a "
            "picture, its noise says nothing of it."
        )
    steps = int(config.get("num_train_timesteps", 1000))
    table = _table(config, name, steps)
    process = Gaussian(ZeroTerminalSNR(table) if zero else table)
    return Trained(process, PREDICTIONS[prediction], steps)


def _table(config: Config, name: str | None, steps: int) -> Any:
    if config.get("trained_betas") is not None:
        raise ValueError("trained_betas aren't read; only tables that have a name.")
    if name not in _BETAS:
        needed = ("beta_schedule", "beta_start", "beta_end")
        left_out = [field for field in needed if field not in config]
        if left_out:
            raise ValueError(
                f"scheduler_config.json has no {', '.join(left_out)}, and what its class "
                f"{name!r} takes by default isn't known here."
            )
    kind = config.get("beta_schedule", "linear")
    low, high = _BETAS.get(str(name), _DDPM)
    start, end = config.get("beta_start", low), config.get("beta_end", high)
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
