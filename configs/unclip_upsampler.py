"""unCLIP's upsamplers at the paper's sizes, 64x64 to 256x256 and on to 1,024x1,024, for a pod."""

import functools
from typing import Literal

import jax.numpy as jnp
import optax

from diffusion_jax import (
    DDIM,
    CosineBeta,
    Discrete,
    Gaussian,
    LearnedVariance,
    LinearBeta,
    Uniform,
    simple,
    table_time,
    trailing,
)
from diffusion_jax.corruptions import BSR, RandomBlur
from diffusion_jax.data import patch, tfds_source
from diffusion_jax.models import LowResolution, from_linen, unclip_256, unclip_1024, with_time
from diffusion_jax.training.experiment import Experiment, hybrid

TABLE = 1000


def recipe(
    size: Literal[256, 1024] = 256,
    dataset: str | None = None,
    steps: int = 1_000_000,
    batch_size: int | None = None,
    seed: int = 0,
    learning_rate: float | None = None,
    noise: float = 0.0,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
) -> Experiment:
    """The upsamplers of Ramesh et al. 2022, table 3: 0.73 and 0.28 B parameters, for a pod.

    Both learn patches of a quarter of the side, and draw whole pictures. To 256x256 the small
    picture is blurred, to 1,024x1,024 it goes through BSR. The data are a set of pictures of your
    own, in TFDS's layout. They haven't been trained here; compiled for 256 v5e chips their steps
    need 10.9 and 12.3 GiB a chip (docs/unclip.md), as is said by
    python train.py configs/unclip_upsampler.py --size 1024 --compile-for v5e:16x16

    Args:
        size: of the pictures, four times that of the small ones.
        dataset: the name of a set of that size (default: pictures_256 or pictures_1024).
        steps: training steps.
        batch_size: patches a step, over all devices (default: the paper's 1,024 or 512).
        seed: of parameters, data order and noise.
        learning_rate: of Adam, constant (default: the paper's).
        noise: the most that is added to the small pictures, and told.
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
    """
    small = size == 256
    side = size // 4
    network = (unclip_256 if small else unclip_1024)(jnp.bfloat16 if bfloat16 else jnp.float32)
    rate = (1.2e-4 if small else 1e-4) if learning_rate is None else learning_rate
    name = dataset or f"pictures_{size}"
    return Experiment(
        source=lambda split, data_dir: tfds_source(name, split, data_dir),
        image_shape=(side, side, 3),
        augment=patch(side),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(CosineBeta(TABLE) if small else LinearBeta(TABLE)),
        parameterization=LearnedVariance(),
        conditioning=LowResolution(4, noise, corruption=RandomBlur() if small else BSR()),
        learning_rate=optax.constant_schedule(rate),
        optimizer=optax.adam,
        batch_size=batch_size or (1024 if small else 512),
        steps=steps,
        seed=seed,
        make_loss=functools.partial(hybrid, steps=TABLE),
        times=Discrete(TABLE, Uniform()),
        weighting=simple,
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=DDIM(),
        grid=functools.partial(trailing, steps=TABLE),
    )
