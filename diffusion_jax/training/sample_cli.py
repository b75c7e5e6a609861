"""The command line of sample.py: a run folder in, a PNG grid (and arrays) out."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from diffusion_jax.data import save_png
from diffusion_jax.data.files import write_atomically
from diffusion_jax.models.conditioning import Known
from diffusion_jax.training.drawing import draw, mosaic
from diffusion_jax.training.editing_cli import (
    check_starts_from_noise,
    guided_within,
    repainted,
    started_from,
)
from diffusion_jax.training.embedding_cli import Turned, turned
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.known_cli import Told, as_flag, check_finite, known_from
from diffusion_jax.training.needs import check_pinned
from diffusion_jax.training.runs import load_experiment, load_params
from diffusion_jax.training.sampler_cli import (
    GridName,
    SamplerName,
    VarianceName,
    choose_grid,
    choose_sampler,
)
from diffusion_jax.training.sampling import (
    check_known,
)
from diffusion_jax.training.sharding import MeshOptions, batch_parts, check_divides
from diffusion_jax.training.signals import ended_at_once
from diffusion_jax.training.steering_cli import Steering
from diffusion_jax.training.task import check_seed
from diffusion_jax.training.unclip_cli import embedded_prompts
from diffusion_jax.training.upsampling_cli import check_upsamplers, enlarged, sized_as
from diffusion_jax.types import Process

ADJUSTS = ("eta", "order", "variance", "churn", "delta")  # flags of some samplers


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """Draw pictures from a trained run.

    Example: python sample.py runs/digits --num 64 --guidance 2 --label 7 --out sevens.png
    """

    run_dir: tyro.conf.Positional[Path]
    """the folder that train.py wrote"""
    num: int = 64
    """how many pictures"""
    seed: int = 0
    """picture i depends on the seed, i and what is told of it (adaptive: on its batch, by 1e-4)"""
    steps: int | None = None
    """steps of the sampler (default: the recipe's, or 50; 1 for adaptive)"""
    sampler: SamplerName = "recipe"
    """how to walk from noise to data; the recipe's own by default"""
    eta: float | None = None
    """noise that ddim (0), dpm_solver (0) and momentum (1) add again: 0 none, 1 a whole step's"""
    order: int | None = None
    """of dpm_solver, dpm_solver_single, unipc (2) and deis (3)"""
    variance: VarianceName | None = None
    """of ancestral's steps (fixed_small)"""
    churn: float | None = None
    """noise that edm adds and removes again, S_churn (0)"""
    delta: float | None = None
    """noise of heat's steps (0.025)"""
    grid: GridName = "recipe"
    """which times to walk; the recipe's own by default"""
    guidance: float | None = None
    """classifier-free guidance, gamma: 0 ignores what is told, 1 is none (default: the recipe's)"""
    interval: tuple[float, float] | None = None
    """LOW HIGH: guide only while t is between (0 data, 1 noise), as if gamma were 1 elsewhere"""
    rescale: float | None = None
    """phi: how far the guided answer's spread is brought back to the unguided one's (0)"""
    told: Annotated[Told, tyro.conf.arg(name="")] = Told()
    """what the model is told"""
    prior: Path | None = None
    """run folder of a prior, which makes of each --prompt what unCLIP's decoder reads"""
    prior_guidance: float | None = None
    """gamma of --prior (default: its recipe's)"""
    prior_steps: int | None = None
    """steps of a diffusion --prior (50)"""
    upsampler: tuple[Path, ...] = ()
    """run folders of upsamplers, each of which enlarges what the one before drew, by its recipe's
    sampler in 25 steps"""
    augment: float | None = None
    """noise that pictures get before each --upsampler, which is told of it: it hides their faults,
    0 none, 1 nothing but noise (0)"""
    turned: Annotated[Turned, tyro.conf.arg(name="")] = Turned()
    """what unCLIP's decoder makes of pictures' embeddings"""
    init_image: Path | None = None
    """PNG to begin from instead of noise"""
    strength: float | None = None
    """how much of --init-image is forgotten: 0 nothing, 1 all (0.6)"""
    resamples: int | None = None
    """how often --inpaint walks each stretch again, RePaint's r (1: replacement alone)"""
    steering: Annotated[Steering, tyro.conf.arg(name="")] = Steering()
    """what steers beside the model"""
    weights: Literal["ema", "raw"] = "ema"
    """averaged or raw parameters"""
    step: int | Literal["best"] | None = None
    """the checkpoint's step, or "best": of the lowest loss (default: the newest)"""
    captions: bool = True
    """write each --prompt under its pictures in the grid"""
    out: Path = Path("samples.png")
    """where the PNG grid goes"""
    npz: Path | None = None
    """where arrays go: pictures [n h w c] float32 in [-1, 1], seed, and what was told"""
    batch_size: int = 16
    """pictures at a time, over all devices"""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = MeshOptions()
    """which devices"""
    data_dir: Path | None = None
    """folder of prepared TFDS sets, for processes that start from data and for held-out examples"""
    recipe: Path | None = None
    """a recipe that isn't in configs/; its code is executed"""


def sample_command(argv: Sequence[str]) -> None:
    """sample.py RUN [--flags]."""
    options = tyro.cli(SampleOptions, args=list(argv), prog="sample.py")
    experiment = load_experiment(options.run_dir, options.recipe)
    check_pinned(options.run_dir, experiment.needs)
    if options.told.low_resolution:
        experiment = sized_as(experiment, options.told.low_resolution)
    guidance = experiment.guidance if options.guidance is None else options.guidance
    check_numbers(options, guidance)
    flags = {flag: getattr(options, flag) for flag in ADJUSTS}
    sampler = choose_sampler(experiment, options.sampler, flags)
    steps = choose_steps(experiment, options)
    check_belongs(options, guidance)
    options.steering.check()
    edited(experiment, options, experiment.process).grid(steps)  # refuses before any work
    mesh = options.mesh.make()
    check_divides(options.batch_size, batch_parts(mesh), what="--batch-size")
    for path in filter(None, (options.out, options.npz)):
        check_writable(path)
    if options.npz and options.npz.resolve() == options.out.resolve():
        raise ValueError(f"--out and --npz are both {options.out}; one would replace the other.")
    level = options.augment or 0.0
    told = () if options.turned.asked() else experiment.conditioning.features
    if options.upsampler:
        check_upsamplers(options.upsampler, experiment.image_shape, told, level)
    how: dict[str, Any] = {"steps": steps, "seed": options.seed}
    how |= {"batch_size": options.batch_size, "data_dir": options.data_dir}
    if options.turned.asked():
        check_turns(options)
        params = load_params(experiment, options.run_dir, options.weights, options.step, mesh)
        with ended_at_once():
            known: Known = {}
            pictures = turned(
                options.turned, experiment, options.run_dir, params, options.num, **how
            )
    else:
        known = told_of(experiment, options)
        experiment = options.steering.steered(experiment, known, mesh, options.data_dir)
        check_known(experiment, known, guidance)
        params = load_params(experiment, options.run_dir, options.weights, options.step, mesh)
        _, process = experiment.parts(params)
        asked = edited(experiment, options, process)
        size = "x".join(map(str, experiment.image_shape[:2]))
        how["desc"] = size if options.prior or options.upsampler else None
        pictures = draw(asked, params, sampler, known, guidance=guidance, mesh=mesh, **how)
    for number, run in enumerate(options.upsampler, 1):
        how = {"level": level, "seed": options.seed, "batch_size": options.batch_size}
        how |= {"mesh": mesh, "data_dir": options.data_dir}
        pictures = enlarged(run, pictures, known, number, **how)
    save_png(options.out, mosaic(pictures, options.told.prompt if options.captions else ()))
    print(f"wrote {options.num} pictures to {options.out}")
    if options.npz:
        arrays = io.BytesIO()
        np.savez(arrays, pictures=pictures, seed=options.seed, **known)
        write_atomically(options.npz, arrays.getvalue())
        print(f"wrote arrays to {options.npz}")


def told_of(experiment: Experiment, options: SampleOptions) -> Known:
    """What the model is told of each picture.

    Raises:
        ValueError: flags that the model doesn't read, that don't go together or can't be read.
    """
    if options.prior is None:
        if options.told.prompt and "image_embedding" in experiment.conditioning.features:
            raise ValueError(
                "--prompt: this decoder reads embeddings, which a prior makes of texts; name its "
                "run folder by --prior."
            )
        return known_from(experiment, options.num, options.told, options.data_dir)
    if options.told != Told(prompt=options.told.prompt):
        raise ValueError("--prior goes with --prompt alone: nothing else tells the decoder.")
    with ended_at_once():
        return embedded_prompts(
            experiment,
            options.run_dir,
            options.prior,
            options.told.prompt,
            options.num,
            steps=options.prior_steps,
            guidance=options.prior_guidance,
            seed=options.seed,
            batch_size=options.batch_size,
            data_dir=options.data_dir,
        )


def check_numbers(options: SampleOptions, guidance: float) -> None:
    """Raises ValueError for a number out of range."""
    if options.num < 1:
        raise ValueError(f"--num is {options.num}; ask for at least 1 picture.")
    check_finite("--guidance", guidance)
    if options.prior_guidance is not None:
        check_finite("--prior-guidance", options.prior_guidance)
    if options.prior_steps is not None and options.prior_steps < 1:
        raise ValueError(f"--prior-steps is {options.prior_steps}; it must be at least 1.")
    check_seed(options.seed, "--seed")


def check_belongs(options: SampleOptions, guidance: float) -> None:
    """Raises ValueError for a flag whose owner isn't there."""
    owners = {
        "strength": (options.init_image, "--init-image"),
        "resamples": (options.told.inpaint, "--inpaint"),
        "prior_guidance": (options.prior, "--prior"),
        "prior_steps": (options.prior, "--prior"),
        "augment": (options.upsampler or None, "--upsampler"),
    }
    for name, (owner, flag) in owners.items():
        if getattr(options, name) is not None and owner is None:
            raise ValueError(f"{as_flag(name)} was given, but it belongs to {flag}.")
    for name in ("interval", "rescale"):
        if getattr(options, name) is not None and guidance == 1.0:
            raise ValueError(
                f"{as_flag(name)} was given, but gamma is 1, which is no guidance; name another "
                "with --guidance."
            )


def check_turns(options: SampleOptions) -> None:
    """Raises ValueError for flags that --variations, --interpolate and --edit don't read."""
    plain = SampleOptions(options.run_dir)
    for name in (
        "told",
        "prior",
        "guidance",
        "interval",
        "rescale",
        "sampler",
        *ADJUSTS,
        "grid",
        "init_image",
        "steering",
    ):
        if getattr(options, name) != getattr(plain, name):
            flag = "what the model is told" if name == "told" else as_flag(name)
            raise ValueError(
                f"{flag} doesn't go with --variations, --interpolate or --edit, which walk by DDIM "
                "without guidance and text."
            )


def edited(experiment: Experiment, options: SampleOptions, process: Process) -> Experiment:
    """The experiment with --grid, --interval, --rescale, --inpaint and --init-image."""
    grid = choose_grid(process, options.grid, experiment.grid)
    experiment = dataclasses.replace(experiment, grid=grid)
    if options.interval is not None or options.rescale is not None:
        experiment = guided_within(experiment, options.interval, options.rescale)
    if options.told.inpaint:
        check_starts_from_noise(experiment, "--inpaint")
    if options.init_image:
        strength = 0.6 if options.strength is None else options.strength
        experiment = started_from(experiment, options.init_image, strength, options.data_dir)
    if options.resamples is not None:
        experiment = repainted(experiment, options.resamples)
    return experiment


def choose_steps(experiment: Experiment, options: SampleOptions) -> int:
    """The number of steps.

    Raises:
        ValueError: it is below 1, or the recipe's network was trained for another grid.
    """
    only = experiment.sample_steps
    if only and (options.steps not in (None, only) or options.grid != "recipe"):
        raise ValueError(
            f"this recipe samples in {only} steps of its own grid, for which its network was "
            "trained; leave --steps and --grid out."
        )
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps is {options.steps}; it must be at least 1.")
    adaptive = options.sampler == "adaptive" and options.grid == "recipe"
    return options.steps or only or (1 if adaptive else 50)


def check_writable(path: Path) -> None:
    """Raises OSError, before any work, where a file can't be written."""
    if path.is_dir():
        raise IsADirectoryError(f"can't write {path}: it is a folder.")
    if path.exists() and not path.is_file():
        raise OSError(f"can't write {path}: it is a device, and would be replaced by a file.")
    try:
        write_atomically(path.with_name(f".{path.name}.probe"), b"")
        path.with_name(f".{path.name}.probe").unlink()
    except OSError as error:
        raise OSError(error.errno, f"can't write {path}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).rsplit(": ", 1)[-1]
