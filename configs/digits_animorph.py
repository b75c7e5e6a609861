"""Animorph of handwritten digits, 8x8: one digit takes over from another.

    python train.py configs/digits_animorph.py
    python sample.py runs/digits_animorph --num 100 --out digits_animorph.png

The U-Net of configs/digits.py, 0.19 M parameters, on the same pictures. About four minutes of CPU
time; 99.8 % of 1,000 samples are read as their label by the judge of
benchmarks/digits_quality.py.
"""

import functools

import optax

from diffusion_jax import X0, ColdImproved, Cosine, Gaussian, another_picture
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, digits_unet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam, restoration
from diffusion_jax.training.terminals import AnotherPicture


def recipe(
    steps: int = 1200,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.995,
    accumulate: int = 1,
) -> Experiment:
    """The digits, class-conditional, by cold diffusion's animorph (Bansal et al. 2022).

    Sampling starts from any training picture, and turns it into one of the wanted label.

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
        parameterization=X0(),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        make_loss=functools.partial(restoration, noise=another_picture),
        terminal=AnotherPicture(),
        sampler=ColdImproved(),
    )
