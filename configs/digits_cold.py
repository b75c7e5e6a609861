"""Cold diffusion of handwritten digits, 8x8: blur, pixelation, a mask, snow, or fixed noise.

    python train.py configs/digits_cold.py --degradation blur
    python sample.py runs/digits_cold --num 100 --out digits_cold.png

The U-Net of configs/digits.py, 0.19 M parameters, on the same pictures. About four and a half
minutes of CPU time; 82.6 % (blur), 97.6 % (pixelation) and 99.6 % (snow) of 1,000 samples are
read as their label by the judge of benchmarks/digits_quality.py.
"""

from typing import Literal

import optax

from diffusion_jax import (
    X0,
    Cold,
    ColdImproved,
    FixedNoise,
    GaussianBlur,
    GaussianMask,
    Masking,
    Pixelate,
    SineBlur,
    Snow,
)
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels, digits_unet, from_linen, with_time
from diffusion_jax.processes import Degradation
from diffusion_jax.training.experiment import Experiment, adam, restoration
from diffusion_jax.training.terminals import Degraded, FittedColours

DEGRADATIONS: dict[str, Degradation] = {
    "blur": GaussianBlur(SineBlur(8.0)),  # one grey is left
    "pixelation": Pixelate(2),  # four blocks are left
    "mask": Masking(GaussianMask()),
    "snow": Snow(),
    "noise": FixedNoise(),
}


def recipe(
    steps: int = 1200,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    channels: int = 16,
    drop_label: float = 0.1,
    ema_decay: float = 0.995,
    accumulate: int = 1,
    degradation: Literal["blur", "pixelation", "mask", "snow", "noise"] = "blur",
) -> Experiment:
    """The digits, class-conditional, by cold diffusion (Bansal et al. 2022).

    Sampling starts from degraded training pictures of the wanted label; for blur from one grey,
    drawn from a fit of the training pictures' means, with a little noise to break the symmetry.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps.
        channels: of the U-Net's first level.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        degradation: what takes the pictures away.
    """
    return Experiment(
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        model=with_time(from_linen(digits_unet(channels)), lambda t: 1000.0 * t),
        process=Cold(DEGRADATIONS[degradation]),
        parameterization=X0(),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        make_loss=restoration,
        terminal=FittedColours() if degradation == "blur" else Degraded(),
        sampler=ColdImproved(),
    )
