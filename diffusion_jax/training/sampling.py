"""Pictures from an Experiment's parameters: one compiled program, fed batch by batch."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.data import grid, to_uint8
from diffusion_jax.data.augment import example_keys
from diffusion_jax.data.pipeline import stacked
from diffusion_jax.models.conditioning import ClassLabels, Known
from diffusion_jax.models.cuts import gathered
from diffusion_jax.samplers import sample
from diffusion_jax.systems.cascade import stage_key
from diffusion_jax.training.distributed import to_host
from diffusion_jax.training.experiment import Experiment, unsteered
from diffusion_jax.training.sharding import (
    abstract_like,
    batch_parts,
    batched,
    check_divides,
    copied,
    replicated,
    shardings_of,
    spread,
    under,
)
from diffusion_jax.training.task import ToldTask
from diffusion_jax.types import Params, Sampler


def make_sample(
    experiment: Experiment, mesh: Mesh, *, guided: bool = True, data_dir: Path | None = None
):
    """The jitted sampler of an Experiment.

    Args:
        experiment: its denoiser and process.
        mesh: parameters and the batch are cut along it as in training.
        guided: False leaves classifier-free guidance out, for half the work where gamma is 1.
        data_dir: of the data, where x_1 comes from them.

    Returns:
        f(params, sampler, key, times, guidance, index, known) -> pictures [b h w c] in
        [-1, 1], or what the model draws in their place. Everything is traced: other numbers
        compile nothing; another batch size, grid length or kind of sampler does.
    """
    terminal = experiment.terminal
    coder = experiment.coder(data_dir)
    arrays = terminal.prepare(lambda: experiment.source("train", data_dir))

    def draw(arrays, params, sampler, key, times, guidance, index, known):
        coder, began = arrays
        params = gathered(params, stacks=True)  # once, not at every step of the loop
        _, process = experiment.parts(params)
        label = known.get("label", jnp.full(index.shape, -1))
        x, process = terminal.draw(began, process, key, index, label, experiment.shape)
        told = experiment.told(coder, known)
        denoiser = experiment.denoiser(params, told, guidance if guided else None, process)
        if "mask" in told:
            sampler = experiment.inpaint(sampler, told["image"], told["mask"])
        x = sample(key, sampler, process, denoiser, x, times, index=index)
        return experiment.as_pictures(coder, process.decode(x), known)

    whole, cut = replicated(mesh), batched(mesh)
    params = shardings_of(abstract_like(experiment.init_params, jax.random.key(0), mesh))
    jitted = jax.jit(
        under(mesh, draw),
        in_shardings=(whole, params, *4 * (whole,), cut, cut),
        out_shardings=cut,
    )
    return functools.partial(jitted, (coder, arrays))


def sample_batches(
    experiment: Experiment,
    params: Params,
    sampler: Sampler,
    known: Known,
    *,
    steps: int,
    guidance: float,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    first: int = 0,
    stage: int = 0,
    data_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """n pictures, a batch at a time; picture i depends on seed, i and what is known of it.

    Every batch is filled up to `batch_size`, so that all of them run the same program, and
    picture 17 of 18 is bit by bit picture 17 of 64.

    Args:
        known: what the model is told, arrays [n ...]: "label" (int, -1 for none), "tokens", ...;
            where "image" and "mask" are among them, the picture is kept where the mask is 1.
        steps: of the sampler.
        guidance: gamma; 1 runs the unguided program.
        seed: of the noise.
        batch_size: pictures at a time, over all devices.
        first: the number of the first picture.
        stage: of a cascade, whose noise isn't that of the others.
        data_dir: of the data, where x_1 comes from them.

    Raises:
        ValueError: something known is out of range, the model can't be guided, or the batch
            doesn't divide among the devices.
    """
    check_divides(batch_size, batch_parts(mesh), what="the sampling batch size")
    check_known(experiment, known, guidance)
    made = make_sample(experiment, mesh, guided=guidance != 1.0, data_dir=data_dir)
    draw = functools.partial(made.func, *copied(made.args, mesh))  # once, and not for each batch
    key, times = stage_key(jax.random.key(seed), stage), experiment.grid(steps)
    count = count_of(known)
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start)
        padded = {
            name: np.take(value, np.arange(start, start + batch_size), axis=0, mode="clip")
            for name, value in known.items()
        }
        index = np.arange(first + start, first + start + batch_size)
        pictures = draw(params, sampler, key, times, guidance, *spread((index, padded), mesh))
        yield to_host(pictures)[:size]


def count_of(known: Known) -> int:
    """How many examples these arrays are of.

    Raises:
        ValueError: they disagree.
    """
    counts = {name: len(value) for name, value in known.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"what is known is of several numbers of pictures: {counts}.")
    return next(iter(counts.values()))


def check_known(experiment: ToldTask, known: Known, guidance: float) -> None:
    """Raises ValueError for labels and the like, or guidance, that the model can't follow."""
    conditioning = experiment.conditioning
    missing = sorted(set(conditioning.features) - set(known))
    if missing:
        raise ValueError(f"this model has to be told {missing[0]!r} of every picture.")
    # What steers may be told a label that the network isn't.
    steered = isinstance(experiment, Experiment) and experiment.steer is not unsteered
    reads = "label" in conditioning.features or not steered
    conditioning.check(known if reads else {k: v for k, v in known.items() if k != "label"})
    if guidance == 1.0:
        return
    if not jax.tree.leaves(jax.eval_shape(experiment.blank_condition)):
        raise ValueError(
            f"guidance {guidance} was asked for, but this model has no condition to follow."
        )
    if not conditioning.drop:
        raise ValueError(
            f"guidance {guidance} was asked for, but this model was never trained without its "
            "condition."
        )


def cycle_labels(experiment: ToldTask, count: int, labels: tuple[int, ...] = ()) -> np.ndarray:
    """`count` labels that run through `labels`, by default through every class."""
    conditioning = experiment.conditioning
    classes = conditioning.classes if isinstance(conditioning, ClassLabels) else 0
    return np.resize(np.array(labels or tuple(range(classes)) or (-1,), np.int32), count)


def usual_known(experiment: ToldTask, count: int, data_dir: Path | None = None) -> Known:
    """What a model is told when nobody says: every class in turn, else held-out examples'."""
    if isinstance(experiment.conditioning, ClassLabels):
        return {"label": cycle_labels(experiment, count)}
    source = experiment.source("test", data_dir)
    return known_of(experiment, [source[i % len(source)] for i in range(count)])


def known_of(experiment: ToldTask, records: Sequence[Mapping[str, Any]]) -> Known:
    """What the model would be told of these records of its data."""
    features = ("image", *experiment.conditioning.features)
    batch = {name: stacked([record[name] for record in records]) for name in features}
    if experiment.augment is not None and batch["image"].shape[1:] != experiment.image_shape:
        keys = example_keys(0, np.arange(len(records)))  # trained on parts of pictures
        batch["image"] = experiment.augment(batch["image"].astype(np.uint8), keys)
    batch["image"] = batch["image"].astype(np.float32) / 127.5 - 1
    index = jnp.arange(len(records))
    known = experiment.conditioning.known(jax.random.key(0), index, batch)
    return {name: np.asarray(value) for name, value in known.items()}


def sample_grid(
    experiment: Experiment,
    params: Params,
    mesh: Mesh,
    rows: int = 4,
    data_dir: Path | None = None,
) -> np.ndarray:
    """A mosaic of what a model draws in 25 steps, or its recipe's, `rows` of each class: uint8."""
    conditioning = experiment.conditioning
    columns = (conditioning.classes if isinstance(conditioning, ClassLabels) else 0) or 8
    pictures = sample_batches(
        experiment,
        params,
        experiment.sampler,
        usual_known(experiment, rows * columns, data_dir),
        steps=experiment.sample_steps or 25,
        guidance=experiment.guidance,
        seed=experiment.seed,
        batch_size=math.lcm(8, batch_parts(mesh)),
        mesh=mesh,
        data_dir=data_dir,
    )
    scale = max(1, 32 // experiment.image_shape[0])
    return grid(to_uint8(np.concatenate(list(pictures))), columns=columns, scale=scale)
