"""ImageNet, 256x256x3: ADM's network, schedule and optimizer, with labels."""

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
from diffusion_jax.data import Source, flip, tfds_source
from diffusion_jax.models import ClassLabels, adm_256, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, hybrid

TABLE = 1000


def pictures(dataset: str, split: str, data_dir: Path | None) -> Source:
    """The set's train or, for "test", its validation pictures, decoded as they are read."""
    return tfds_source(dataset, "validation" if split == "test" else split, data_dir)


def recipe(
    steps: int = 1_980_000,
    batch_size: int = 256,
    seed: int = 0,
    learning_rate: float = 1e-4,
    drop_label: float = 0.0,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
    dataset: str = "imagenet_256",
) -> Experiment:
    """ImageNet 256x256 as in Dhariwal & Nichol 2021, table 11: 553.8 M parameters, for a pod.

    TFDS's catalogue has no ImageNet of this size: prepare a set of your own in its layout, with an
    "image" of 256x256x3, a "label" of 1,000 classes and the splits train and validation.

    docs/compiled_ahead.md says what the step needs on TPU slices, with
    python train.py configs/imagenet256_adm.py --compile-for v5e:16x16

    Args:
        steps: training steps; the paper's 1,980,000.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, constant.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
        dataset: name of the prepared set.
    """
    network = adm_256(dtype=jnp.bfloat16 if bfloat16 else jnp.float32)
    return Experiment(
        source=functools.partial(pictures, dataset),
        image_shape=(256, 256, 3),
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
        augment=flip(),
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=Ancestral(learned_range),
        grid=functools.partial(trailing, steps=TABLE),
    )
