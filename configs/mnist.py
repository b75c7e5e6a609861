"""MNIST, 28x28: handwritten digits in ten classes."""

import functools

import optax

from diffusion_jax import Cosine, Gaussian, V
from diffusion_jax.data import tfds_in_memory
from diffusion_jax.models import ClassLabels, Sinusoidal, UNet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam


def recipe(
    steps: int = 5000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 1e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.999,
    accumulate: int = 1,
) -> Experiment:
    """MNIST, 28x28, class-conditional, by a U-Net of 1.7 M parameters.

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
    network = UNet(
        out_channels=1,
        channels=channels,
        multipliers=(1, 4, 6),
        blocks=1,
        attention=(7,),
        head_channels=32,
        modulate=True,
        time_features=Sinusoidal(64),
    )
    return Experiment(
        source=functools.partial(tfds_in_memory, "mnist"),
        image_shape=(28, 28, 1),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
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
