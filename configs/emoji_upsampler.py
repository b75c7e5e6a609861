"""unCLIP's upsamplers on emoji, 32x32 to 64x64 and 64x64 to 128x128, unconditional, on patches.

    python train.py configs/emoji_upsampler.py
    python train.py configs/emoji_upsampler.py --dataset emoji128 --corruption bsr --run-dir runs/up

After 5,000 steps (24 minutes, one core) held-out emoji come back from 32x32 at 28.1 dB in ten steps
and 27.3 in 25, where a bicubic kernel has 25.5 (benchmarks/upsampling_quality.py, 2026-11-22). From
64x64 to 128x128 it hasn't been trained.
"""

from typing import Literal

from diffusion_jax import X0, DPMSolverPP, Gaussian, Rectified
from diffusion_jax.corruptions import BSR, RandomBlur
from diffusion_jax.data import in_memory, patch, tfds_source
from diffusion_jax.models import (
    LowResolution,
    Patched,
    Refined,
    from_linen,
    patches_unet,
    with_time,
)
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine


def recipe(
    dataset: Literal["emoji64", "emoji128"] = "emoji64",
    steps: int = 5000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 1e-3,
    side: int = 32,
    corruption: Literal["none", "blur", "bsr"] = "blur",
    noise: float = 0.2,
    channels: int = 32,
    ema_decay: float = 0.999,
) -> Experiment:
    """Emoji at twice the resolution.

    Args:
        dataset: pictures of the larger size.
        steps: training steps.
        batch_size: patches a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        side: of the patches, a multiple of 8; the network draws whole pictures all the same.
        corruption: of the small pictures, in training.
        noise: the most that is added to them, and told.
        channels: of the U-Net's first level.
        ema_decay: of the averaged parameters.
    """
    corruptions = {"none": None, "blur": RandomBlur(), "bsr": BSR()}

    def source(split, data_dir):
        return in_memory(tfds_source(dataset, split, data_dir, label="group"))

    network = Refined(Patched(patches_unet((), channels)))
    return Experiment(
        source=source,
        image_shape=(side, side, 3),
        augment=patch(side),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Rectified(shift=2.0)),
        parameterization=X0(),
        conditioning=LowResolution(2, noise, corruption=corruptions[corruption]),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        sampler=DPMSolverPP(order=2),
    )
