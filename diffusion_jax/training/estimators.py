"""What evaluate.py can compute of a run: three estimators of -log P and what each assumes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from diffusion_jax import likelihood
from diffusion_jax.likelihood.pixels import DEQUANTISATION_STD, HALF_BIN
from diffusion_jax.timesteps import trailing
from diffusion_jax.training.sampler_cli import VARIANCES
from diffusion_jax.types import Denoiser, GaussianProcess, Key, Process

SOLVERS = {"rk4": likelihood.rk4, "heun": likelihood.heun}
BELONGS = {  # flag -> estimators that read it
    "steps": ("discrete", "ode"),
    "draws": ("discrete", "continuous"),
    "variance": ("discrete",),
    "probes": ("ode",),
    "solver": ("ode",),
}


@runtime_checkable
class Choice(Protocol):
    """The flags that choose and adjust an estimator; None is its default."""

    @property
    def estimator(self) -> str: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def draws(self) -> int | None: ...
    @property
    def variance(self) -> str | None: ...
    @property
    def probes(self) -> int | None: ...
    @property
    def solver(self) -> str | None: ...


class Estimator(NamedTuple):
    """How the nats of a batch are found.

    Attributes:
        terms: names of what -log P is a sum of.
        nats: (denoiser, key, index, image) -> these terms, each [b] in nats.
        clipped: whether the denoiser's x0 is to be clipped to the pixels' range.
        assumes: sentences.
    """

    terms: tuple[str, ...]
    nats: Callable[[Denoiser, Key, jax.Array, jax.Array], tuple[jax.Array, ...]]
    clipped: bool
    assumes: list[str]


def choose_estimator(process: Process, options: Choice) -> Estimator:
    """The estimator that the flags describe.

    Raises:
        ValueError: a flag belongs to another estimator or is out of range, or the process isn't
            Gaussian.
    """
    if not isinstance(process, GaussianProcess):
        raise ValueError(f"{process} isn't a Gaussian process, so it has no likelihood.")
    for flag, estimators in BELONGS.items():
        value = getattr(options, flag)
        if value is not None and options.estimator not in estimators:
            owners = " or ".join(f"--estimator {name}" for name in estimators)
            raise ValueError(f"--{flag} is {value}; it belongs to {owners}.")
        least = 0 if flag in ("draws", "probes") else 1
        if isinstance(value, int) and value < least:
            raise ValueError(f"--{flag} is {value}; it is at least {least}.")
    make = {"discrete": _discrete, "continuous": _continuous, "ode": _ode}[options.estimator]
    return make(process, options)


_BOUND = likelihood.Bound._fields[:3]
_LEVELS = "an upper bound on -log2 P of the 8-bit levels themselves: nothing is dequantised"
_DRAWN = "times drawn for each picture; the standard error contains what that costs"


def _discrete(process: GaussianProcess, options: Choice) -> Estimator:
    steps = 1000 if options.steps is None else options.steps
    draws = 20 if options.draws is None else options.draws
    rule = options.variance or "fixed_small"
    if steps < 2:
        raise ValueError("--steps is 1; the bound needs at least 2, of which the last decodes.")
    times = trailing(steps)

    def nats(denoiser: Denoiser, key, index, image):
        how = {"variance": VARIANCES[rule], "index": index}
        if draws:
            bound = likelihood.estimated_bound(
                key, process, denoiser, image, times, draws=draws, **how
            )
        else:
            bound = likelihood.variational_bound(key, process, denoiser, image, times, **how)
        return bound[:3]

    return Estimator(
        _BOUND,
        nats,
        True,
        [
            _LEVELS,
            f"the model is ancestral sampling in {steps} even steps with the {rule} variance, x0 "
            "clipped to [-1, 1], and a discretised Gaussian of deviation sigma/alpha for the last",
            f"{draws} {_DRAWN}" if draws else "every step summed, with one noise for each",
        ],
    )


def _continuous(process: GaussianProcess, options: Choice) -> Estimator:
    draws = 20 if options.draws is None else options.draws
    if not draws:
        raise ValueError("--draws is 0; an integral over time needs at least 1.")

    def nats(denoiser: Denoiser, key, index, image):
        bound = likelihood.continuous_bound(key, process, denoiser, image, draws=draws, index=index)
        return bound[:3]

    return Estimator(
        _BOUND,
        nats,
        True,
        [
            _LEVELS,
            f"infinitely many steps down to t = {float(likelihood.start_at(process)):.3g}, where "
            f"sigma/alpha = {HALF_BIN:.2g} is half a level, with x0 clipped to [-1, 1], then a "
            "discretised Gaussian",
            f"{draws} {_DRAWN}",
        ],
    )


def _ode(process: GaussianProcess, options: Choice) -> Estimator:
    steps = 20 if options.steps is None else options.steps
    probes = 1 if options.probes is None else options.probes
    solver = options.solver or "rk4"
    start = likelihood.flow_start(process)
    times = likelihood.ascending(steps, start)
    divergence: Any = likelihood.Hutchinson(probes) if probes else likelihood.Exact()

    def nats(denoiser: Denoiser, key, index, image):
        key_pixels, key_probes = jax.random.split(key)
        x = likelihood.dequantise(key_pixels, index, image)
        flow = likelihood.flow_log_density(
            key_probes, process, denoiser, x, times,
            divergence=divergence, solver=SOLVERS[solver], index=index,
        )  # fmt: skip
        levels = math.prod(image.shape[1:]) * math.log(127.5)
        density = flow.log_density
        return -density, jnp.full_like(density, levels)

    return Estimator(
        ("density", "levels"),
        nats,
        False,
        [
            "pixels dequantised by uniform noise, once for each picture: on average over the noise "
            "an upper bound on -log2 P of the 8-bit levels (levels: log2 127.5)",
            f"the density is exact for the model that stops at t = {float(start):.3g}, where "
            f"sigma/alpha = {DEQUANTISATION_STD:.2g} is the dequantisation's; x0 isn't clipped",
            f"{solver} in {steps} steps: its error isn't in the standard error, more steps show it",
            "exact divergence"
            if not probes
            else f"Hutchinson's divergence, {probes} Rademacher probe(s) an evaluation; the "
            "standard error contains what that costs",
        ],
    )
