"""Pictures from an Experiment's parameters: one compiled program, fed batch by batch."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.data import grid, to_uint8
from diffusion_jax.samplers import sample
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.sharding import batched, check_divides, replicated
from diffusion_jax.types import Params, Sampler


def make_sample(
    experiment: Experiment, mesh: Mesh, *, guided: bool = True, data_dir: Path | None = None
):
    """The jitted sampler of an Experiment.

    Args:
        experiment: its denoiser and process.
        mesh: the batch is cut along its axis "data".
        guided: False leaves classifier-free guidance out, for half the work where gamma is 1.
        data_dir: of the data, where x_1 comes from them.

    Returns:
        f(params, sampler, key, times, guidance, index, label) -> pictures [b h w c] in
        [-1, 1]. Everything is traced: other numbers compile nothing; another batch size,
        grid length or kind of sampler does.
    """
    terminal, shape = experiment.terminal, experiment.image_shape
    arrays = terminal.prepare(lambda: experiment.source("train", data_dir))

    def draw(arrays, params, sampler, key, times, guidance, index, label):
        _, process = experiment.parts(params)
        x, process = terminal.draw(arrays, process, key, index, label, shape)
        denoiser = experiment.denoiser(params, label, guidance if guided else None, process)
        x = sample(key, sampler, process, denoiser, x, times, index=index)
        return jnp.clip(process.decode(x), -1.0, 1.0)

    whole, cut = replicated(mesh), batched(mesh)
    jitted = jax.jit(draw, in_shardings=(*6 * (whole,), cut, cut), out_shardings=cut)
    return functools.partial(jitted, arrays)


def sample_batches(
    experiment: Experiment,
    params: Params,
    sampler: Sampler,
    labels: np.ndarray,
    *,
    steps: int,
    guidance: float,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    first: int = 0,
    data_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """len(labels) pictures, a batch at a time; picture i depends on seed, i and its label.

    Every batch is filled up to `batch_size`, so that all of them run the same program, and
    picture 17 of 18 is bit by bit picture 17 of 64.

    Args:
        labels: [n] int, -1 for none.
        steps: of the sampler.
        guidance: gamma; 1 runs the unguided program.
        seed: of the noise.
        batch_size: pictures at a time, over all devices.
        first: the number of the first picture.
        data_dir: of the data, where x_1 comes from them.

    Raises:
        ValueError: a label is out of range, or the batch doesn't divide among the devices.
    """
    check_divides(batch_size, mesh.size, what="the sampling batch size")
    check_labels(experiment, labels, guidance)
    draw = make_sample(experiment, mesh, guided=guidance != 1.0, data_dir=data_dir)
    key, times = jax.random.key(seed), experiment.grid(steps)
    for start in range(0, len(labels), batch_size):
        chosen = labels[start : start + batch_size]
        padded = np.pad(chosen, (0, batch_size - len(chosen)), mode="edge")
        index = np.arange(first + start, first + start + batch_size)
        pictures = draw(params, sampler, key, times, guidance, index, padded)
        yield np.asarray(pictures)[: len(chosen)]


def check_labels(experiment: Experiment, labels: np.ndarray, guidance: float) -> None:
    """Raises ValueError for labels or guidance that the model can't follow."""
    classes = experiment.labels.classes
    wrong = sorted({int(v) for v in labels if not -1 <= v < classes})
    if wrong and classes:
        raise ValueError(
            f"label {wrong[0]} is out of range: this model knows 0..{classes - 1} (and -1, none)."
        )
    if wrong:
        raise ValueError(f"label {wrong[0]} was asked for, but this model knows no labels.")
    if guidance != 1.0 and not classes:
        raise ValueError(
            f"guidance {guidance} was asked for, but this model has no condition to follow."
        )


def cycle_labels(experiment: Experiment, count: int, labels: tuple[int, ...] = ()) -> np.ndarray:
    """`count` labels that run through `labels`, by default through every class."""
    chosen = labels or tuple(range(experiment.labels.classes)) or (-1,)
    return np.resize(np.array(chosen, np.int32), count)


def sample_grid(
    experiment: Experiment,
    params: Params,
    mesh: Mesh,
    rows: int = 4,
    data_dir: Path | None = None,
) -> np.ndarray:
    """A picture of what a model draws in 25 steps, or its recipe's: uint8, `rows` of each class."""
    columns = experiment.labels.classes or 8
    pictures = sample_batches(
        experiment,
        params,
        experiment.sampler,
        cycle_labels(experiment, rows * columns),
        steps=experiment.sample_steps or 25,
        guidance=experiment.guidance,
        seed=experiment.seed,
        batch_size=math.lcm(8, mesh.shape["data"]),
        mesh=mesh,
        data_dir=data_dir,
    )
    scale = max(1, 32 // experiment.image_shape[0])
    return grid(to_uint8(np.concatenate(list(pictures))), columns=columns, scale=scale)
