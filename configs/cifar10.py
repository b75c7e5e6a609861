"""CIFAR-10, 32x32x3: the DDPM paper's network, process and schedule, with labels."""

import functools
from typing import Literal

import jax.numpy as jnp
import optax

from diffusion_jax import (
    Discrete,
    Gaussian,
    LinearBeta,
    Noise,
    Uniform,
    simple,
    table_time,
    trailing,
)
from diffusion_jax.data import flip, tfds_in_memory
from diffusion_jax.models import ClassLabels, ddpm_cifar10, from_linen, with_time
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adafactor, adam, adam_bfloat16, adamw

TABLE = 1000
OPTIMIZERS = {
    "adam": adam,
    "adamw": adamw,
    "adam_bfloat16": adam_bfloat16,
    "adafactor": adafactor,
}


def recipe(
    steps: int = 800_000,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-4,
    warmup: int = 5000,
    drop_label: float = 0.1,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = False,
    optimizer: Literal["adam", "adamw", "adam_bfloat16", "adafactor"] = "adam",
) -> Experiment:
    """CIFAR-10 as in Ho et al. 2020, appendix B, with labels: 35.7 M parameters, for a GPU or TPU.

    Prepare the set first: pip install 'diffusion_jax[tfds]' and tfds build cifar10
    --file_format array_record.

    Args:
        steps: training steps; the paper's 800,000.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after the warm-up.
        warmup: steps in which the learning rate rises.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
        optimizer: the paper's Adam, or one of `training/optimizers.py`.
    """
    network = ddpm_cifar10(jnp.bfloat16 if bfloat16 else jnp.float32)
    return Experiment(
        source=functools.partial(tfds_in_memory, "cifar10"),
        image_shape=(32, 32, 3),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(LinearBeta(TABLE, start=1e-4, end=0.02)),
        parameterization=Noise(),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, warmup),
        optimizer=OPTIMIZERS[optimizer],
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        times=Discrete(TABLE, Uniform()),
        weighting=simple,
        augment=flip(),
        ema_decay=ema_decay,
        accumulate=accumulate,
        grid=functools.partial(trailing, steps=TABLE),
        guidance=1.5,
    )
