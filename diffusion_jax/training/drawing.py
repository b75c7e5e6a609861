"""All pictures that are asked for, with a progress bar, and as one."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax.data import grid, subtitled, to_uint8
from diffusion_jax.models.conditioning import Known
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.sampling import count_of, sample_batches
from diffusion_jax.training.signals import ended_at_once
from diffusion_jax.types import Params, Sampler


def draw(
    experiment: Experiment,
    params: Params,
    sampler: Sampler,
    known: Known,
    *,
    desc: str | None = None,
    **how,
) -> np.ndarray:
    """All pictures [n h w c] in [-1, 1], with a progress bar of this name; arguments of
    `sample_batches`.

    Raises:
        FloatingPointError: a picture isn't finite.
    """
    done: list[np.ndarray] = []
    first = 0
    bar = tqdm(total=count_of(known), desc=desc, unit="picture", disable=None, dynamic_ncols=True)
    with bar, ended_at_once():
        for pictures in sample_batches(experiment, params, sampler, known, **how):
            finite = np.isfinite(pictures).all((1, 2, 3))
            if not finite.all():
                raise FloatingPointError(
                    f"picture {first + finite.argmin()} isn't finite, so nothing is written; less "
                    "guidance or another sampler may keep it so."
                )
            done.append(pictures)
            first += len(pictures)
            bar.update(len(pictures))
    return np.concatenate(done)


def in_batches(
    run: Callable[[jax.Array], jax.Array | np.ndarray],
    num: int,
    batch_size: int,
    *,
    desc: str | None = None,
    unit: str = "picture",
) -> np.ndarray:
    """The rows 0..num - 1 of what `run` makes of examples' numbers, a batch at a time, with a
    progress bar.

    Args:
        run: numbers [batch_size] -> rows; those of the last batch may be `num` and more.
        num: rows that are wanted.
        batch_size: of each call.
        desc, unit: of the bar.

    Raises:
        FloatingPointError: they aren't all finite.
    """
    done = []
    bar = tqdm(total=num, desc=desc, unit=unit, disable=None, dynamic_ncols=True)
    with bar:
        for start in range(0, num, batch_size):
            rows = np.asarray(run(jnp.arange(start, start + batch_size)))
            if not np.isfinite(rows).all():
                raise FloatingPointError(
                    f"{unit}s {start} to {start + batch_size - 1} aren't finite, so nothing is "
                    "written."
                )
            done.append(rows)
            bar.update(min(batch_size, num - start))
    return np.concatenate(done)[:num]


def mosaic(pictures: np.ndarray, captions: Sequence[str] = ()) -> np.ndarray:
    """A grid of pictures [n h w c] in [-1, 1], small ones enlarged, captions in turn below them."""
    scale = max(1, (128 if captions else 64) // pictures.shape[2])
    tiles = to_uint8(pictures).repeat(scale, axis=1).repeat(scale, axis=2)
    if captions:
        tiles = subtitled(tiles, [captions[i % len(captions)] for i in range(len(tiles))])
    return grid(tiles)
