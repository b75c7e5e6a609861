"""Coloured shapes from captions, 16x16: "a large red cube above a blue ball".

    python train.py configs/shapes_captions.py
    python sample.py runs/shapes_captions --prompt "a large red cube above a blue ball"

How many captions are obeyed is in docs/guidance.md.
"""

import optax

from diffusion_jax import DPMSolverPP, Gaussian, Rectified, V
from diffusion_jax.data import SHAPES_WORDS, in_memory, shapes, tokenized
from diffusion_jax.models import (
    Encoded,
    Text,
    TextEncoder,
    from_linen,
    shapes_unet,
    with_time,
)
from diffusion_jax.training.experiment import Experiment, adam


def recipe(
    steps: int = 14000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 1e-3,
    size: int = 16,
    channels: int = 32,
    drop_text: float = 0.1,
    ema_decay: float = 0.999,
    accumulate: int = 1,
) -> Experiment:
    """Coloured shapes from captions; nothing to download.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 200 steps.
        size: height and width of the pictures, a multiple of 16.
        channels: of the U-Net's first level.
        drop_text: probability that a caption is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
    """
    words = SHAPES_WORDS
    encoder = TextEncoder(words.size, width=64, layers=2, heads=4, length=words.length)
    network = Encoded(encoder, shapes_unet(size, channels))
    return Experiment(
        source=lambda split, data_dir: in_memory(tokenized(shapes(split, size), words)),
        image_shape=(size, size, 3),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Rectified(shift=3.0)),
        parameterization=V(),
        conditioning=Text(words, drop_text),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 200),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        sampler=DPMSolverPP(order=2),
        accumulate=accumulate,
        guidance=2.0,
    )
