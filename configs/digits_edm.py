"""EDM of handwritten digits, 8x8: its preconditioning, noise levels, weighting and sampler.

    python train.py configs/digits_edm.py
    python sample.py runs/digits_edm --steps 18 --out digits_edm.png

The U-Net of configs/digits.py, 0.19 M parameters, on the same pictures. About four minutes of CPU
time; 100.0 % of 1,000 samples (25 steps of Heun, guidance 2) are read as their label by the judge
of benchmarks/digits_quality.py.
"""

import optax

from diffusion_jax import EDM, Churn, EDMWeighting, Gaussian, KarrasVE, LogNormal, Stratified
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, digits_unet, from_linen, with_time
from diffusion_jax.training.experiment import Experiment, adam

SIGMA_DATA = 0.75  # of the digits' pixels in [-1, 1]


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
    """The digits, class-conditional, by EDM (Karras et al. 2022).

    The variance explodes from 0.002 to 80; even times walk the paper's grid of noise levels.

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
    process, predicted = Gaussian(KarrasVE()), EDM(SIGMA_DATA)
    c_noise = predicted.network_time(process)
    return Experiment(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        model=with_time(
            from_linen(digits_unet(channels)),
            lambda t: 250.0 * c_noise(t),
            predicted.input_scale(process),
        ),
        process=process,
        parameterization=predicted,
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        times=LogNormal(process, times=Stratified()),
        weighting=EDMWeighting(SIGMA_DATA),
        sampler=Churn(),
        guidance=2.0,
    )
