"""What upsamplers make of pictures that were drawn, by sample.py's flags."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.data.augment import Patch
from diffusion_jax.data.images import png_size
from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.image_conditioning import low_resolution
from diffusion_jax.systems.cascade import stage_key, tell_key
from diffusion_jax.training import checkpoints
from diffusion_jax.training.drawing import draw
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import check_pinned
from diffusion_jax.training.runs import load_experiment, load_params


def check_upsamplers(
    runs: Sequence[Path], shape: tuple[int, ...], told: Sequence[str], level: float
) -> None:
    """Refuses upsamplers before any work.

    Args:
        runs: their folders.
        shape: of the pictures that they enlarge, (h, w, c).
        told: what else is known of these.
        level: of the noise that these get first.

    Raises:
        ValueError: a run enlarges no pictures of this kind, was trained on another one that has
            changed, never saw so much noise on them, or has to be told what the model isn't.
        FileNotFoundError: it has no checkpoint.
    """
    height, width, channels = shape
    for run in runs:
        task = load_experiment(run)
        check_pinned(run, task.needs)
        if not checkpoints.steps(run / "checkpoints"):
            raise FileNotFoundError(f"--upsampler {run} has no checkpoint yet; train first.")
        part = low_resolution(task.conditioning)
        if part is None or task.image_shape[2:] != (channels,):
            raise ValueError(
                f"--upsampler {run} enlarges no pictures of {channels} channels, as "
                "configs/emoji_upsampler.py's do."
            )
        missing = sorted(set(task.conditioning.features) - set(told))
        if missing:
            raise ValueError(
                f"--upsampler {run} has to be told {missing[0]!r} of every picture, which isn't "
                "known here."
            )
        height, width = part.factor * height, part.factor * width
        if not isinstance(task.augment, Patch) and task.image_shape[:2] != (height, width):
            raise ValueError(
                f"--upsampler {run} makes pictures of {task.image_shape[0]}x{task.image_shape[1]}, "
                f"and these would be of {height}x{width}; one that was trained on patches takes "
                "any size."
            )
        if not 0 <= level <= part.noise:
            raise ValueError(
                f"--augment is {level:g}; {run} was trained with noise from 0 to {part.noise:g}."
            )


def sized_as(experiment: Experiment, small: Path) -> Experiment:
    """The experiment of pictures as large as a small PNG becomes, if it was trained on patches."""
    part = low_resolution(experiment.conditioning)
    if part is None or not isinstance(experiment.augment, Patch):
        return experiment
    height, width = png_size(small, "--low-resolution")
    return experiment.resized(part.factor * height, part.factor * width)


def enlarged(
    run: Path,
    pictures: np.ndarray,
    known: Known,
    number: int,
    *,
    level: float,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    data_dir: Path | None = None,
) -> np.ndarray:
    """What an upsampler makes of pictures [n h w c] in [-1, 1].

    Args:
        run: its folder; it may have been trained on patches of another size.
        pictures: of any size that it can halve.
        known: what the first stage was told; this one is told what it reads of that.
        number: of the stage, from 1: its noise isn't that of the ones before.
        level: of the noise that the pictures get first, and that is told.
        seed, batch_size, mesh, data_dir: as of the other pictures.
    """
    experiment = load_experiment(run)
    part = low_resolution(experiment.conditioning)
    assert part is not None, "check_upsamplers"
    height, width = (part.factor * n for n in pictures.shape[1:3])
    experiment = experiment.resized(height, width)
    key, index = stage_key(jax.random.key(seed), number), jnp.arange(len(pictures))
    read = {name: known[name] for name in experiment.conditioning.features}
    told = part.noised(tell_key(key), index, {**read, "low": pictures}, level=level)
    return draw(
        experiment,
        load_params(experiment, run, mesh=mesh),
        experiment.sampler,
        {name: np.asarray(value) for name, value in told.items()},
        desc=f"{height}x{width}",
        steps=experiment.sample_steps or 25,
        guidance=experiment.guidance,
        seed=seed,
        stage=number,
        batch_size=batch_size,
        mesh=mesh,
        data_dir=data_dir,
    )
