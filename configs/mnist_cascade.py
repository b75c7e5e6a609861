"""MNIST by a class-conditional cascade: digits of 14x14, and from these of 28x28.

python train.py configs/mnist_cascade.py --stage small --run-dir runs/mnist_small
python train.py configs/mnist_cascade.py --stage large --run-dir runs/mnist_large
python sample.py runs/mnist_small --upsampler runs/mnist_large --augment 0.1

Seven minutes a stage on one core; docs/unclip.md shows digits.
"""

import functools
from typing import Literal

from diffusion_jax import X0, DPMSolverPP, Gaussian, Rectified, V
from diffusion_jax.data import shrunk, tfds_in_memory
from diffusion_jax.models import (
    ClassLabels,
    Joined,
    LowResolution,
    Patched,
    Refined,
    Sinusoidal,
    UNet,
    from_linen,
    with_time,
)
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adam, warmed_up_cosine


def recipe(
    stage: Literal["small", "large"] = "small",
    steps: int = 2000,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    noise: float = 0.3,
    ema_decay: float = 0.995,
) -> Experiment:
    """Either stage of a cascade (Ho et al. 2021); both are told the class.

    Args:
        stage: of 14x14, or what enlarges its digits to 28x28.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps; falls to 0 as a cosine.
        channels: of the U-Net's first level.
        drop_label: probability that a label is dropped (classifier-free guidance).
        noise: the most that is added to the small digits for the large stage, and told.
        ema_decay: of the averaged parameters.
    """
    small = stage == "small"
    size = 14 if small else 28
    unet = UNet(
        out_channels=1 if small else 4,
        channels=channels,
        multipliers=(1, 3),
        blocks=1,
        attention=(7,),
        head_channels=16,
        modulate=True,
        time_features=Sinusoidal(64),
    )
    network = unet if small else Refined(Patched(unet))  # which sees 14x14 in both
    labels = ClassLabels(10, drop_label)
    digits = functools.partial(tfds_in_memory, "mnist")
    return Experiment(
        source=(lambda split, data_dir: shrunk(digits(split, data_dir), 2)) if small else digits,
        image_shape=(size, size, 1),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Rectified(shift=1.0 if small else 2.0)),
        parameterization=V() if small else X0(),
        conditioning=labels if small else Joined((labels, LowResolution(2, noise))),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        sampler=DPMSolverPP(order=2),
        guidance=1.5 if small else 1.0,
    )
