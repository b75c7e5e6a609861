"""The command line of evaluate.py: a run folder in, bits per dimension out."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from jax.sharding import Mesh
from tqdm import tqdm

from diffusion_jax import likelihood, variances
from diffusion_jax.data import Source
from diffusion_jax.data.files import write_atomically
from diffusion_jax.denoisers import clip, denoiser_from
from diffusion_jax.likelihood.pixels import DEQUANTISATION_STD, HALF_BIN
from diffusion_jax.timesteps import trailing
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.sample_cli import check_writable, load_experiment, restore_params
from diffusion_jax.training.sharding import batched, check_divides, data_mesh, replicated
from diffusion_jax.types import Denoiser, GaussianProcess, Key, Params

SOLVERS = {"rk4": likelihood.rk4, "heun": likelihood.heun}
VARIANCES = {
    "fixed_small": variances.fixed_small,
    "fixed_large": variances.fixed_large,
    "learned_range": variances.learned_range,
}
BELONGS = {  # flag -> estimators that read it
    "steps": ("discrete", "ode"),
    "draws": ("discrete", "continuous"),
    "variance": ("discrete",),
    "probes": ("ode",),
    "solver": ("ode",),
}


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Bits per dimension of a trained run, with the standard error over the pictures.

    discrete is DDPM's variational bound, continuous VDM's, ode the probability flow's density of
    dequantised pictures.

    Example: python evaluate.py runs/digits --estimator ode --num 200
    """

    run_dir: tyro.conf.Positional[Path]
    """the folder that train.py wrote"""
    estimator: Literal["discrete", "continuous", "ode"] = "discrete"
    """what to compute"""
    split: str = "test"
    """of the run's data set"""
    num: int = 500
    """how many pictures, chosen by the seed"""
    seed: int = 0
    """what is drawn for a picture depends on the seed and the picture's number alone"""
    steps: int | None = None
    """of the grid (discrete: 1000, ode: 20)"""
    draws: int | None = None
    """times drawn for each picture (20); 0 sums every step of discrete"""
    variance: Literal["fixed_small", "fixed_large", "learned_range"] | None = None
    """of discrete's reverse steps (fixed_small)"""
    probes: int | None = None
    """of ode's divergence, at each evaluation (1); 0 is the exact one, a product a dimension"""
    solver: Literal["rk4", "heun"] | None = None
    """of ode (rk4)"""
    conditional: bool = False
    """tell the model each picture's label; else none, and no guidance ever"""
    weights: Literal["ema", "raw"] = "ema"
    """averaged or raw parameters"""
    step: int | None = None
    """the checkpoint's step (default: the newest)"""
    out: Path | None = None
    """where the JSON goes (default: likelihood_ESTIMATOR.json in the run)"""
    data_dir: Path | None = None
    """folder of prepared data sets"""
    batch_size: int = 50
    """pictures at a time, over all devices"""
    devices: int | None = None
    """devices to use (default: all)"""
    recipe: Path | None = None
    """a recipe that isn't in configs/; its code is executed"""


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


def evaluate_command(argv: Sequence[str]) -> None:
    """evaluate.py RUN [--flags]."""
    options = tyro.cli(EvaluateOptions, args=list(argv), prog="evaluate.py")
    experiment = load_experiment(options.run_dir, options.recipe)
    estimator = choose_estimator(experiment, options)
    mesh = data_mesh(options.devices)
    check_divides(options.batch_size, mesh.size, what="--batch-size")
    source = experiment.source(options.split, options.data_dir)
    check_asked(experiment, source, options)
    out = options.out or options.run_dir / f"likelihood_{options.estimator}.json"
    check_writable(out)
    restored = restore_params(experiment, options.run_dir, options.weights, options.step, mesh)

    chosen = np.sort(np.random.default_rng(options.seed).permutation(len(source))[: options.num])
    began = time.perf_counter()
    terms = evaluate(experiment, restored.state, estimator, source, chosen, options, mesh)
    bits = np.sum(list(terms.values()), axis=0)
    mean, error = bits.mean(), bits.std(ddof=1) / math.sqrt(len(bits))
    told = "told its label" if options.conditional else "without a label"
    report = {
        "bits_per_dimension": float(mean),
        "standard_error": float(error),
        "terms": {name: float(values.mean()) for name, values in terms.items()},
        "assumes": estimator.assumes,
        "trained_steps": restored.step,
        "of": len(source),
        "seconds": time.perf_counter() - began,
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(options).items()
        },
    }
    write_atomically(out, (json.dumps(report, indent=2) + "\n").encode())
    print(
        f"{mean:.4f} +- {error:.4f} bits per dimension: {options.run_dir} at step {restored.step} "
        f"({options.weights}), {len(bits)} of {len(source)} {options.split} pictures, {told}"
    )
    print("= " + " + ".join(f"{values.mean():.4f} {name}" for name, values in terms.items()))
    print("\n".join(f"- {sentence}" for sentence in estimator.assumes))
    print(f"wrote {out}")


def choose_estimator(experiment: Experiment, options: EvaluateOptions) -> Estimator:
    """The estimator that the flags describe.

    Raises:
        ValueError: a flag belongs to another estimator or is out of range, or the process isn't
            Gaussian.
    """
    process = experiment.process
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


def _discrete(process: GaussianProcess, options: EvaluateOptions) -> Estimator:
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
            "clipped to [-1, 1], and a discretised Gaussian for the last",
            f"{draws} {_DRAWN}" if draws else "every step summed, with one noise for each",
        ],
    )


def _continuous(process: GaussianProcess, options: EvaluateOptions) -> Estimator:
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


def _ode(process: GaussianProcess, options: EvaluateOptions) -> Estimator:
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
        return -density, jax.numpy.full_like(density, levels)

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


def check_asked(experiment: Experiment, source: Source, options: EvaluateOptions) -> None:
    """Raises ValueError where the split or the model can't answer what is asked."""
    if not 2 <= options.num <= len(source):
        raise ValueError(
            f"--num is {options.num}; the {options.split} split has {len(source)} pictures, and a "
            "standard error needs at least 2."
        )
    classes = experiment.labels.classes
    if options.conditional and not (classes and source.classes):
        raise ValueError("--conditional was asked for, but this model knows no labels.")
    if not options.conditional and classes and not experiment.labels.drop:
        raise ValueError("this model was never trained without a label; use --conditional.")


def evaluate(
    experiment: Experiment,
    params: Params,
    estimator: Estimator,
    source: Source,
    chosen: np.ndarray,
    options: EvaluateOptions,
    mesh: Mesh,
) -> dict[str, np.ndarray]:
    """Each term's bits per dimension for every chosen picture, with a progress bar."""

    def nats(params, key, index, image, label):
        condition = experiment.labels.condition(label)
        denoiser = denoiser_from(
            lambda x, t: experiment.model.apply(params, x, t, condition),
            experiment.process,
            experiment.parameterization,
        )
        denoiser = clip(denoiser, experiment.process) if estimator.clipped else denoiser
        return estimator.nats(denoiser, key, index, image)

    whole, cut = replicated(mesh), batched(mesh)
    run = jax.jit(nats, in_shardings=(whole, whole, cut, cut, cut), out_shardings=cut)
    dimensions = math.prod(experiment.image_shape)
    done: list[np.ndarray] = []
    with tqdm(total=len(chosen), unit="picture", disable=None, dynamic_ncols=True) as bar:
        for count, batch in _batches(source, chosen, options):
            found = run(params, jax.random.key(options.seed), *batch)
            done.append(np.stack([np.asarray(nats, float)[:count] for nats in found]))
            bar.update(count)
    bits = likelihood.bits_per_dimension(np.concatenate(done, axis=1), dimensions)
    return dict(zip(estimator.terms, bits, strict=True))


def _batches(
    source: Source, chosen: np.ndarray, options: EvaluateOptions
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """(how many are real, (index [b], image [b h w c] in [-1, 1], label [b])), filled up."""
    size = options.batch_size
    for first in range(0, len(chosen), size):
        index = chosen[first : first + size]
        count = len(index)
        index = np.pad(index, (0, size - count), mode="edge")
        records = [source[int(i)] for i in index]
        image = np.stack([record["image"] for record in records]).astype(np.float32) / 127.5 - 1
        label = [record["label"] if options.conditional else -1 for record in records]
        yield count, (index.astype(np.int32), image.astype(np.float32), np.array(label, np.int32))
