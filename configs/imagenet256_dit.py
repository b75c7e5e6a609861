"""ImageNet, 256x256, as 32x32x4 latents: DiT-XL/2 with the paper's schedule and optimizer."""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax import (
    Ancestral,
    Discrete,
    Gaussian,
    LearnedVariance,
    LinearBeta,
    Uniform,
    learned_range,
    simple,
    table_time,
    trailing,
)
from diffusion_jax.data import Source, tfds_source
from diffusion_jax.models import ClassLabels, from_linen, with_time
from diffusion_jax.models.dit import Remat, dit
from diffusion_jax.training.experiment import Experiment, hybrid

TABLE = 1000


def pictures(dataset: str, split: str, data_dir: Path | None) -> Source:
    """The set's train or, for "test", its validation latents as they are read."""
    return tfds_source(dataset, "validation" if split == "test" else split, data_dir)


def recipe(
    steps: int = 7_000_000,
    batch_size: int = 256,
    seed: int = 0,
    learning_rate: float = 1e-4,
    drop_label: float = 0.1,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
    remat: Remat = "none",
    dataset: str = "imagenet_256_latents",
) -> Experiment:
    """DiT-XL/2 on latents as in Peebles & Xie 2022: 675 M parameters, for a pod.

    The latents are a set that you prepare, in TFDS's layout: an "image" of 32x32x4 bytes that stand
    for latents scaled to [-1, 1], a "label" of 1,000 classes and the splits train and validation.
    That differs from the paper's latents, which are real numbers of deviation about 1.

    docs/compiled_ahead.md says what the step needs on TPU slices, with
    python train.py configs/imagenet256_dit.py --compile-for v5e:16x16

    Args:
        steps: training steps; the paper's longest run, 7,000,000.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, constant.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
        remat: what the gradient computes again: nothing, all but matrix products, or every block.
        dataset: name of the prepared set.
    """
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    network = dit("XL", 2, remat=remat, dtype=dtype)
    return Experiment(
        source=functools.partial(pictures, dataset),
        image_shape=(32, 32, 4),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(LinearBeta(TABLE, start=1e-4, end=0.02)),
        parameterization=LearnedVariance(),
        conditioning=ClassLabels(1000, drop_label),
        learning_rate=optax.constant_schedule(learning_rate),
        optimizer=optax.adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        make_loss=functools.partial(hybrid, steps=TABLE),
        times=Discrete(TABLE, Uniform()),
        weighting=simple,
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=Ancestral(learned_range),
        grid=functools.partial(trailing, steps=TABLE),
    )
