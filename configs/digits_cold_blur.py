"""Cold diffusion of handwritten digits, 8x8, by blur alone: no noise, a deterministic restoration.

    python train.py configs/digits_cold_blur.py
    python sample.py runs/digits_cold_blur --num 100 --out digits_cold_blur.png

The U-Net of configs/digits.py, 0.19 M parameters, on the same pictures.
"""

import optax

from diffusion_jax import X0, Cold, ColdImproved, GaussianBlur, SineBlur, restoration_loss
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, Sinusoidal, UNet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam
from diffusion_jax.training.terminals import FittedColours
from diffusion_jax.types import Loss


def restoration(experiment: Experiment) -> Loss:
    """L1 between the network's x0 and the true one."""
    return restoration_loss(
        experiment.model.apply,
        experiment.process,
        times=experiment.times,
        condition=experiment.labels,
    )


def recipe(
    steps: int = 1200,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.995,
    accumulate: int = 1,
    sigma_max: float = 8.0,
) -> Experiment:
    """The digits, class-conditional, by cold diffusion (Bansal et al. 2022) with Gaussian blur.

    Sampling starts from one grey, drawn from a fit of the training pictures' means, with a
    little noise to break the symmetry.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps.
        channels: of the U-Net's first level.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        sigma_max: width of the blur at t = 1, pixels.
    """
    if sigma_max <= 0:
        raise ValueError(f"sigma_max is {sigma_max}; a blur is wider than 0 pixels.")
    network = UNet(
        out_channels=1,
        channels=channels,
        multipliers=(1, 2),
        blocks=1,
        attention=(4,),
        head_channels=16,
        modulate=True,
        time_features=Sinusoidal(32),
    )
    return Experiment(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Cold(GaussianBlur(SineBlur(sigma_max))),
        parameterization=X0(),
        labels=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        make_loss=restoration,
        terminal=FittedColours(),
        sampler=ColdImproved(),
    )
