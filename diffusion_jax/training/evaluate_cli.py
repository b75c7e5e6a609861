"""The command line of evaluate.py: a run folder in, bits per dimension out."""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro
from jax.sharding import Mesh
from tqdm import tqdm

from diffusion_jax import likelihood
from diffusion_jax.data import Source
from diffusion_jax.data.files import write_atomically
from diffusion_jax.denoisers import clip, denoiser_from
from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.cuts import gathered
from diffusion_jax.training.estimators import Estimator, choose_estimator
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.runs import load_experiment, restore_params
from diffusion_jax.training.sample_cli import check_writable
from diffusion_jax.training.sampling import known_of
from diffusion_jax.training.sharding import (
    MeshOptions,
    batch_parts,
    batched,
    check_divides,
    replicated,
    shardings_of,
    under,
)
from diffusion_jax.training.terminals import FromNoise
from diffusion_jax.types import Params


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
    """tell the model each picture's label or other condition; else none, and no guidance ever"""
    weights: Literal["ema", "raw"] = "ema"
    """averaged or raw parameters"""
    step: int | Literal["best"] | None = None
    """the checkpoint's step, or "best": of the lowest loss (default: the newest)"""
    out: Path | None = None
    """where the JSON goes (default: likelihood_ESTIMATOR.json in the run)"""
    data_dir: Path | None = None
    """folder of prepared data sets"""
    batch_size: int = 50
    """pictures at a time, over all devices"""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = MeshOptions()
    """which devices"""
    recipe: Path | None = None
    """a recipe that isn't in configs/; its code is executed"""


def evaluate_command(argv: Sequence[str]) -> None:
    """evaluate.py RUN [--flags]."""
    options = tyro.cli(EvaluateOptions, args=list(argv), prog="evaluate.py")
    experiment = load_experiment(options.run_dir, options.recipe)
    if isinstance(experiment, LatentExperiment):
        raise ValueError("bits per dimension are of pictures, and this model is of latents.")
    if not isinstance(experiment.terminal, FromNoise):
        raise ValueError(
            f"this recipe's x_1 comes from {experiment.terminal}, not from noise alone, so the "
            "likelihood of its samples isn't known."
        )
    choose_estimator(experiment.process, options)  # refuses before any work
    mesh = options.mesh.make()
    check_divides(options.batch_size, batch_parts(mesh), what="--batch-size")
    source = experiment.source(options.split, options.data_dir)
    check_asked(experiment, source, options)
    out = options.out or options.run_dir / f"likelihood_{options.estimator}.json"
    check_writable(out)
    restored = restore_params(experiment, options.run_dir, options.weights, options.step, mesh)

    estimator = choose_estimator(experiment.parts(restored.state)[1], options)
    chosen = np.sort(np.random.default_rng(options.seed).permutation(len(source))[: options.num])
    began = time.perf_counter()
    terms = evaluate(experiment, restored.state, estimator, source, chosen, options, mesh)
    bits = np.sum(list(terms.values()), axis=0)
    mean, error = bits.mean(), bits.std(ddof=1) / math.sqrt(len(bits))
    if not np.isfinite(mean):
        lost = int(np.sum(~np.isfinite(bits)))
        raise ValueError(f"the bound of {lost} of {len(bits)} pictures isn't finite.")
    told = "told its condition" if options.conditional else "told nothing"
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


def check_asked(experiment: Experiment, source: Source, options: EvaluateOptions) -> None:
    """Raises ValueError where the split or the model can't answer what is asked."""
    if not 2 <= options.num <= len(source):
        raise ValueError(
            f"--num is {options.num}; the {options.split} split has {len(source)} pictures, and a "
            "standard error needs at least 2."
        )
    conditioning = experiment.conditioning
    told = jax.tree.leaves(jax.eval_shape(experiment.blank_condition))
    if options.conditional and not told:
        raise ValueError("--conditional was asked for, but this model has no condition.")
    if not options.conditional and told and not conditioning.drop:
        raise ValueError("this model was never trained without its condition; use --conditional.")


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

    def nats(params, key, index, image, known):
        conditioning = experiment.conditioning
        tell = conditioning.condition if options.conditional else conditioning.null
        condition = tell(known)
        network, process = experiment.parts(gathered(params))
        denoiser = denoiser_from(
            lambda x, t: network(x, t, condition),
            process,
            experiment.parameterization,
        )
        denoiser = clip(denoiser, process) if estimator.clipped else denoiser
        return estimator.nats(denoiser, key, index, image)

    whole, cut = replicated(mesh), batched(mesh)
    placed = shardings_of(params)
    run = jax.jit(under(mesh, nats), in_shardings=(placed, whole, cut, cut, cut), out_shardings=cut)
    dimensions = math.prod(experiment.image_shape)
    done: list[np.ndarray] = []
    with tqdm(total=len(chosen), unit="picture", disable=None, dynamic_ncols=True) as bar:
        for count, batch in _batches(experiment, source, chosen, options):
            found = run(params, jax.random.key(options.seed), *batch)
            done.append(np.stack([np.asarray(nats, float)[:count] for nats in found]))
            bar.update(count)
    bits = likelihood.bits_per_dimension(np.concatenate(done, axis=1), dimensions)
    return dict(zip(estimator.terms, bits, strict=True))


def _batches(
    experiment: Experiment, source: Source, chosen: np.ndarray, options: EvaluateOptions
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, Known]]]:
    """(how many are real, (index [b], image [b h w c] in [-1, 1], known)), filled up."""
    size = options.batch_size
    for first in range(0, len(chosen), size):
        index = chosen[first : first + size]
        count = len(index)
        index = np.pad(index, (0, size - count), mode="edge")
        records = [source[int(i)] for i in index]
        image = np.stack([record["image"] for record in records]).astype(np.float32) / 127.5 - 1
        known = known_of(experiment, records)
        yield count, (index.astype(np.int32), image.astype(np.float32), known)
