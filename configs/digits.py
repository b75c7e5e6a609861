"""Handwritten digits, 8x8: the embedded data set, for a first look on a laptop.

    python train.py configs/digits.py

A U-Net of 0.19 M parameters. `make demo` trains it on two cores and measures it: 100.0 % of
1,000 guided samples are read as their label (README, Results).
"""

import optax

from diffusion_jax import Cosine, Gaussian, V
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, digits_unet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam


def recipe(
    steps: int = 900,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.995,
    accumulate: int = 1,
) -> Experiment:
    """scikit-learn's handwritten digits, 8x8, class-conditional; nothing to download.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps.
        channels: of the U-Net's first level.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
    """
    return Experiment(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        model=with_time(from_linen(digits_unet(channels)), lambda t: 1000.0 * t),
        process=Gaussian(Cosine()),
        parameterization=V(),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        guidance=2.0,
    )
