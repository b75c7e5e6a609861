"""ImageNet, 64x64x3: ADM's network, schedule and optimizer, with labels."""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax import (
    Ancestral,
    CosineBeta,
    Discrete,
    Gaussian,
    LearnedVariance,
    Uniform,
    learned_range,
    simple,
    table_time,
    trailing,
)
from diffusion_jax.data import Source, flip, tfds_source
from diffusion_jax.models import ClassLabels, adm_64, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, hybrid

TABLE = 1000


def pictures(split: str, data_dir: Path | None) -> Source:
    """The set's train or, for "test", its validation pictures, decoded as they are read."""
    return tfds_source(
        "imagenet_resized/64x64", "validation" if split == "test" else split, data_dir
    )


def recipe(
    steps: int = 540_000,
    batch_size: int = 2048,
    seed: int = 0,
    learning_rate: float = 3e-4,
    drop_label: float = 0.0,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
) -> Experiment:
    """ImageNet 64x64 as in Dhariwal & Nichol 2021, table 11: 295.9 M parameters, for a pod.

    Prepare the set first: pip install 'diffusion_jax[tfds]' and tfds build
    imagenet_resized/64x64 --file_format array_record. Its pictures are the whole ones, resized;
    the paper crops their middle. Its 15.7 GB of pixels are read from disk.

    It hasn't been trained here, nor compiled at this batch; what it needs on a slice is said by
    python train.py configs/imagenet64_adm.py --compile-for v5e:16x16

    Args:
        steps: training steps; the paper's 540,000.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, constant.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
    """
    network = adm_64(dtype=jnp.bfloat16 if bfloat16 else jnp.float32)
    return Experiment(
        source=pictures,
        image_shape=(64, 64, 3),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(CosineBeta(TABLE)),
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
        augment=flip(),
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=Ancestral(learned_range),
        grid=functools.partial(trailing, steps=TABLE),
    )
