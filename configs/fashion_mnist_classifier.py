"""A noise-aware classifier of Fashion-MNIST, which steers any model of the same noise to a label.

python train.py configs/fashion_mnist_classifier.py
python sample.py runs/fashion_mnist --classifier runs/fashion_mnist_classifier --guidance 0
"""

import functools

import optax

from diffusion_jax import Cosine, Gaussian
from diffusion_jax.data import tfds_in_memory
from diffusion_jax.models import (
    ClassLabels,
    NoiseAwareClassifier,
    Sinusoidal,
    from_linen,
    with_time,
)
from diffusion_jax.training.task import NoisyTask, adam, classification


def recipe(
    steps: int = 2000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 1e-3,
    channels: int = 16,
    ema_decay: float = 0.999,
    accumulate: int = 1,
) -> NoisyTask:
    """The class of a noisy Fashion-MNIST picture, for classifier guidance.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps.
        channels: of the trunk's first level.
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
    """
    network = NoiseAwareClassifier(
        classes=10,
        channels=channels,
        multipliers=(1, 2, 4),
        blocks=1,
        attention=(7,),
        head_channels=32,
        modulate=True,
        time_features=Sinusoidal(64),
    )
    return NoisyTask(
        source=functools.partial(tfds_in_memory, "fashion_mnist"),
        image_shape=(28, 28, 1),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Cosine()),
        conditioning=ClassLabels(0),
        make_loss=classification,
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
    )
