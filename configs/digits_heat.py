"""Inverse heat dissipation of handwritten digits, 8x8: heat spreads, and the network gathers it.

    python train.py configs/digits_heat.py
    python sample.py runs/digits_heat --num 100 --out digits_heat.png

The U-Net of configs/digits.py, 0.19 M parameters, on the same pictures. About four minutes of CPU
time; 86.1 % of 1,000 samples are read as their label by the judge of
benchmarks/digits_quality.py.
"""

import optax

from diffusion_jax import Discrete, Heat, LessBlurred, Stratified, heat
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, digits_unet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam, unfinished
from diffusion_jax.training.terminals import FromData


def recipe(
    steps: int = 1200,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.995,
    accumulate: int = 1,
    sigma_max: float = 6.0,
    levels: int = 50,
    noise: float = 0.02,
    delta: float | None = None,
) -> Experiment:
    """The digits, class-conditional, by inverse heat dissipation (Rissanen et al. 2022).

    Sampling starts from blurred training pictures of the wanted label. The paper's noise is 0.01
    for pictures in [0, 1], so 0.02 here.

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
        levels: of blur, and steps of sampling.
        noise: of training.
        delta: of sampling; 1.25 times the noise by default.
    """
    return Experiment(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        model=with_time(from_linen(digits_unet(channels)), lambda t: 1000.0 * t),
        process=heat(sigma_max=sigma_max, steps=levels, noise=noise),
        parameterization=LessBlurred(levels),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        times=Discrete(levels, Stratified()),
        terminal=FromData(),
        finish=unfinished,
        sampler=Heat(1.25 * noise if delta is None else delta),
        sample_steps=levels,
    )
