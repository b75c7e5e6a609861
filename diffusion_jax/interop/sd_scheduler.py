"""How scheduler_config.json has pictures drawn: times, a sampler, what the network is told of t.

`sd_table` reads how the checkpoint was trained, `sd_kinds` has the classes. What changes numbers is
followed or refused by name, but for this:

- DDIM and PNDM of diffusers' always step by T // n entries of the table, and tell the network the
  grid's next time all the same. Ours step from one time of the grid to the next: on "trailing"
  where n doesn't divide T, samples differ by one percent or so.
- On "linspace" and "trailing" Euler's method, its ancestral form and Heun's begin there with the
  noise times sigma / sqrt(1 + sigma^2) of the table's end, 0.998 of ours for Stable Diffusion's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.denoisers import table_time
from diffusion_jax.interop.sd_kinds import ELSE, KINDS, UNKNOWN, Kind, refused
from diffusion_jax.interop.sd_table import Config, class_of, is_rescaled, read_trained
from diffusion_jax.processes import Gaussian
from diffusion_jax.timesteps import karras, leading, linspace, trailing
from diffusion_jax.types import Sampler, Time

_SPACINGS = ("leading", "linspace", "trailing")
# With rescale_betas_zero_snr, these classes end at abar = 0, and others at 2^-24.
_TO_ZERO = ("DDIMScheduler", "DDPMScheduler")
_LAST = -12 * math.log(2)  # log(alpha / sigma)


class Walk(NamedTuple):
    """How a checkpoint's authors sample in n steps.

    Attributes:
        times: n + 1, descending.
        sampler: walks them.
        told: what the network is told of t.
    """

    times: Float[Array, " n+1"]
    sampler: Sampler
    told: Callable[[Time], Array]


def in_pipeline(config: Config, pipeline: str) -> Config:
    """The file as a pipeline of diffusers' corrects it before it samples.

    Those of 1.x and 2.x take a steps_offset of 1 whatever the file says, with skip_prk_steps for
    inpainting and without clip_sample for the rest. Those of XL follow the file.

    Args:
        config: of scheduler_config.json.
        pipeline: _class_name of model_index.json.
    """
    if not config or "XL" in pipeline:
        return config
    forced = {"skip_prk_steps": True} if "Inpaint" in pipeline else {"clip_sample": False}
    return {**config, "steps_offset": 1, **forced}


def read_grid(config: Config, n: int) -> Float[Array, " {n}+1"]:
    """The times of n steps by another sampler than the file's: of its spacing, offset and end.

    Args:
        config: of scheduler_config.json, `in_pipeline`.
        n: steps.

    Raises:
        ValueError: nothing is said, a timestep_spacing that isn't known, or more steps than T.
    """
    kind = KINDS.get(str(class_of(config)), UNKNOWN)
    return _spaced(_fields(kind, config), kind, n)


def read_walk(config: Config, n: int) -> Walk:
    """How the file has n steps drawn.

    Args:
        config: of scheduler_config.json, `in_pipeline`.
        n: steps.

    Raises:
        ValueError: as `read_trained` and `read_grid`, or a class or an option that isn't followed.
    """
    trained = read_trained(config)
    name = class_of(config)
    kind = KINDS.get(str(name), UNKNOWN)
    if kind.sampler is None:
        followed = ", ".join(key for key, value in KINDS.items() if value.sampler)
        raise ValueError(
            f"the scheduler {name!r} isn't followed here; {ELSE}. These are followed: {followed}."
        )
    fields = _fields(kind, config)
    _check(fields, kind, trained.process, is_rescaled(config))
    sampler, told = kind.sampler(fields, n), table_time(trained.steps)
    times = _spaced(fields, kind, n)
    if fields.get("use_karras_sigmas"):
        entries = jnp.asarray((np.arange(trained.steps) + 1) / trained.steps, jnp.float32)
        ends = entries[jnp.asarray([0, -1])] if kind.solver else times[jnp.asarray([-2, 0])]
        times = _karras(trained.process, ends, n).at[-1].set(times[-1])
        told = functools.partial(
            _nearest if kind.solver else _between, trained.process, _level(trained.process, entries)
        )
    elif is_rescaled(config) and name not in _TO_ZERO:
        last = trained.process.time_at(jnp.asarray(2.0 * _LAST))
        told = functools.partial(_at_most, told, last)
        times = jnp.minimum(times, last)
    return Walk(times, sampler, told)


def _fields(kind: Kind, config: Config) -> dict[str, Any]:
    """What the class reads, with its defaults."""
    own = {*kind.defaults, *kind.followed, "num_train_timesteps", "beta_schedule"}
    silent = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
    return silent | dict(kind.defaults) | {k: v for k, v in config.items() if k in own}


def _check(fields: Config, kind: Kind, process: Gaussian, rescaled: bool) -> None:
    """Raises for values that aren't followed."""
    for field, values in kind.followed.items():
        if field in fields and fields[field] not in values:
            listed = " or ".join(repr(value) for value in values if value is not None)
            raise refused(field, fields[field], listed or "null")
    if fields.get("timestep_type") == "continuous" and fields["prediction_type"] == "v_prediction":
        raise refused("timestep_type", "continuous", "'discrete'")
    last = _LAST if rescaled else -float(_level(process, jnp.ones(())))
    least = fields.get("lambda_min_clipped", -math.inf)
    if least > last:
        raise refused("lambda_min_clipped", least, f"the table's {last:.3f} or less")
    if fields.get("use_karras_sigmas"):
        if rescaled or fields["beta_schedule"] not in ("linear", "scaled_linear"):
            raise refused("use_karras_sigmas", True, "False on this table")
        for field in ("sigma_min", "sigma_max"):
            if fields.get(field) is not None:
                raise refused(field, fields[field], "null")


def _spaced(fields: Config, kind: Kind, n: int) -> Float[Array, " {n}+1"]:
    """n + 1 times, all but the last of the table."""
    spacing, steps = fields.get("timestep_spacing", "linspace"), int(fields["num_train_timesteps"])
    if spacing not in _SPACINGS:
        raise ValueError(f"timestep_spacing is {spacing!r}; {', '.join(_SPACINGS)} are known here.")
    one_more = kind.solver and spacing != "trailing"
    match spacing:
        case "leading":
            times = leading(n + one_more, steps, int(fields["steps_offset"]))
        case "trailing":
            times = trailing(n, steps)
        case _ if kind.between:
            entries = np.linspace(0, steps - 1, n)[::-1] + 1
            times = jnp.asarray(np.append(entries / steps, 0.0), jnp.float32)
        case _:
            times = linspace(n + one_more, steps)
    if one_more:
        times = jnp.concatenate([times[:-2], times[-1:]])
    return times if _ends_clean(fields, kind) else times.at[-1].set(np.float32(1 / steps))


def _ends_clean(fields: Config, kind: Kind) -> bool:
    """Whether the last step ends in a clean picture, and not at the table's first entry."""
    if kind.unclean:
        return False
    to_one = bool(fields.get("set_alpha_to_one", True))
    return to_one and fields.get("final_sigmas_type", "zero") == "zero"


def _karras(process: Gaussian, ends: Array, n: int) -> Float[Array, " {n}+1"]:
    """The Karras grid from the second of these times to the first, then 0."""
    low, high = (float(level) for level in jnp.exp(_level(process, ends)))
    return karras(n, process, sigma_min=low, sigma_max=high)


def _level(process: Gaussian, t: Array) -> Array:
    """log(sigma / alpha)."""
    return -0.5 * process.log_snr(t)


def _between(process: Gaussian, table: Array, t: Time) -> Array:
    """The index, linear in log(sigma / alpha) between entries of the table."""
    return jnp.interp(_level(process, t), table, jnp.arange(len(table), dtype=table.dtype))


def _at_most(told: Callable[[Time], Array], last: Array, t: Time) -> Array:
    """What the network is told, from `last` on the table's last index."""
    return told(jnp.where(t >= last, 1.0, t))


def _nearest(process: Gaussian, table: Array, t: Time) -> Array:
    return jnp.round(_between(process, table, t))
