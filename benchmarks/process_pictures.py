"""A picture of every process, data to noise and back: python benchmarks/process_pictures.py

Draws docs/processes/NAME.png for each forward process on the digits: rows of pictures from t = 0
to t = 1. Where runs/RECIPE has a trained model of it, rows from x_1 back to a sample follow below
a line, each with the label of the digit above it, and NAME_samples.png is a grid of samples.
Without a run the picture has the way there alone.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import diffusion_jax as dj  # noqa: E402
from diffusion_jax.data import digits, grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.training.experiment import Experiment  # noqa: E402
from diffusion_jax.training.recipes import build, find_recipe, load_recipe  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.sampling import sample_grid  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402
from diffusion_jax.training.terminals import read_pictures  # noqa: E402
from diffusion_jax.types import Params, Process  # noqa: E402

LABELS = np.array([3, 5, 8], np.int32)
COLUMNS = 11


# Name of the picture: a process alone.
PROCESSES: dict[str, Process] = {
    "rectified": dj.Gaussian(dj.Rectified()),
    "ve": dj.Gaussian(dj.VE()),
    "sub_vp": dj.Gaussian(dj.SubVP()),
}
# Name of the picture: the recipe, with its arguments in the name of its run.
RECIPES: dict[str, tuple[str, dict[str, str]]] = {
    "gaussian": ("digits", {}),
    "edm": ("digits_edm", {}),
    "vdm": ("digits_vdm", {}),
    "blurring": ("digits_blurring", {}),
    "heat": ("digits_heat", {}),
    "soft_blur": ("digits_soft", {"corruption": "blur"}),
    "soft_mask": ("digits_soft", {"corruption": "mask"}),
    "cold_blur": ("digits_cold", {"degradation": "blur"}),
    "cold_pixelation": ("digits_cold", {"degradation": "pixelation"}),
    "cold_mask": ("digits_cold", {"degradation": "mask"}),
    "cold_snow": ("digits_cold", {"degradation": "snow"}),
    "cold_noise": ("digits_cold", {"degradation": "noise"}),
    "animorph": ("digits_animorph", {}),
}


def chosen_digits(skip: int) -> jax.Array:
    """A training picture of each label, after `skip` others of it: [3 h w c]."""
    image, label, *_ = read_pictures(digits(), 10_000)
    return jnp.stack([image[np.flatnonzero(np.asarray(label) == v)[skip]] for v in LABELS])


def visible(process: Process, x: jax.Array, t: jax.Array) -> jax.Array:
    """x in pixels; where the variance explodes, divided by its root."""
    pixels = process.decode(x)
    if not isinstance(process, dj.Gaussian):
        return pixels
    alpha, sigma = process.scales(t, x)
    return pixels / jnp.maximum(1.0, jnp.sqrt(alpha**2 + sigma**2))


def way_there(process: Process, partner: jax.Array | None = None) -> np.ndarray:
    """Pictures at t = 0, ..., 1: [3 columns h w c]; the partner is what plays the noise."""
    x0 = process.encode(chosen_digits(0))
    z = jnp.asarray(np.random.default_rng(0).normal(size=x0.shape), x0.dtype)
    noise = z if partner is None else partner
    times = np.linspace(0.0, 1.0, COLUMNS)
    corrupt = jax.jit(lambda t: visible(process, process.corrupt(x0, noise, t), t))
    return np.stack([corrupt(jnp.full(len(LABELS), t, x0.dtype)) for t in times], axis=1)


def way_back(experiment: Experiment, params: Params, seed: int, steps: int) -> np.ndarray:
    """x_1 to a sample at as many times of the grid: [3 columns h w c]."""
    steps = experiment.sample_steps or steps
    terminal, index = experiment.terminal, jnp.arange(len(LABELS))
    arrays = terminal.prepare(lambda: experiment.source("train", None))
    label, key = jnp.asarray(LABELS), jax.random.key(seed)
    _, own = experiment.parts(params)

    def begin(arrays):
        return terminal.draw(arrays, own, key, index, label, experiment.image_shape)

    @jax.jit
    def one(arrays, params, i, x, times):
        _, process = begin(arrays)  # again: it knows the noise of these examples
        denoiser = experiment.denoiser(params, {"label": label}, experiment.guidance, process)
        key_step = jax.random.fold_in(key, i)
        x = dj.sample(key_step, experiment.sampler, process, denoiser, x, times, index=index)
        return x, visible(process, x, jnp.full(len(LABELS), times[1]))

    x, process = begin(arrays)
    times = experiment.grid(steps)
    shown = [np.asarray(visible(process, x, jnp.full(len(LABELS), times[0])))]
    for i in range(steps):
        x, pixels = one(arrays, params, i, x, times[i : i + 2])
        shown.append(np.asarray(pixels))
    kept = np.linspace(0, steps, COLUMNS).round().astype(int)
    return np.stack([shown[k] for k in kept], axis=1)


def mosaic(ways: list[np.ndarray], scale: int = 6) -> np.ndarray:
    """Each way's rows under the one before, with a white line between: uint8 [h w 1]."""
    parts = [
        grid(to_uint8(way.reshape(-1, *way.shape[2:])), columns=COLUMNS, scale=scale)
        for way in ways
    ]
    line = np.full((4, *parts[0].shape[1:]), 255, np.uint8)
    return np.concatenate([row for part in parts for row in (line, part)][1:])


def main(
    runs: Path = Path("runs"),
    out: Path = Path("docs/processes"),
    seed: int = 0,
    steps: int = 50,
    only: tuple[str, ...] = (),
) -> None:
    """Draws every process.

    Args:
        runs: folder of the runs; a run has its recipe's name.
        out: folder of the pictures.
        seed: of the samples.
        steps: of sampling, where the recipe doesn't say.
        only: names of pictures; all by default.
    """
    out.mkdir(parents=True, exist_ok=True)
    every = (*PROCESSES, *RECIPES)
    unknown = sorted(set(only) - set(every))
    if unknown:
        raise SystemExit(f"--only {unknown[0]} is no picture; there are {', '.join(every)}.")
    chosen = only or every
    for name, process in PROCESSES.items():
        if name not in chosen:
            continue
        save_png(out / f"{name}.png", mosaic([way_there(process)]))
        print(f"{out / name}.png: there")
    for name, (recipe, arguments) in RECIPES.items():
        if name not in chosen:
            continue
        run = runs / "_".join((recipe, *arguments.values()))
        trained = (run / "checkpoints").is_dir()
        if trained:
            experiment = load_experiment(run)
        else:
            experiment = build(load_recipe(find_recipe(recipe)), arguments, recipe)
        partner = chosen_digits(1)[jnp.array([1, 2, 0])] if name == "animorph" else None
        ways = [way_there(experiment.process, partner)]
        if trained:
            params = load_params(experiment, run, "ema", None, data_mesh(1))
            ways.append(way_back(experiment, params, seed, steps))
            samples = sample_grid(experiment, params, data_mesh(1))
            save_png(out / f"{name}_samples.png", samples)
        save_png(out / f"{name}.png", mosaic(ways))
        print(f"{out / name}.png: there{' and back' if trained else f', without {run}'}")


if __name__ == "__main__":
    tyro.cli(main)
