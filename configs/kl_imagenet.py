"""A KL autoencoder at the size of latent diffusion's papers: ImageNet, 256x256, f4 or f8."""

import functools
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import optax

from diffusion_jax.data import Source, flip, tfds_source
from diffusion_jax.interop.lpips import lpips_judge
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.training.optimizers import adam_of_players
from diffusion_jax.training.picture_codecs import Judge, KLTask, Player, judge_of

MULTIPLIERS = {4: (1, 2, 4), 8: (1, 2, 4, 4)}
LATENTS = {4: 3, 8: 4}


def pictures(dataset: str, split: str, data_dir: Path | None) -> Source:
    """The set's train or, for "test", its validation pictures, decoded as they are read."""
    return tfds_source(dataset, "validation" if split == "test" else split, data_dir)


def recipe(
    factor: Literal["4", "8"] = "8",
    judge: Path | None = None,
    lpips: Path | None = None,
    steps: int = 500_000,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 4.5e-6,
    channels: int = 128,
    kl_weight: float = 1e-6,
    perceptual: float = 1.0,
    adversarial: float = 0.5,
    start: int = 50_000,
    ema_decay: float = 0.999,
    accumulate: int = 1,
    bfloat16: bool = True,
    dataset: str = "imagenet_256",
) -> KLTask:
    """ImageNet 256x256 in the codecs of Rombach et al. 2022, table 8: f4 with 3 channels of
    latents, 64x64x3, or f8 with 4, 32x32x4, which is Stable Diffusion's, 83.7 M parameters.

    Its data are a TFDS set with pictures "image" of 256x256x3 and the splits train and validation.
    The papers trained on OpenImages with LPIPS of VGG-16 (--lpips FILE); the judge may be a tower
    that was trained here too, and without either pixels alone are compared.

    It hasn't been trained here; what it needs on a slice is said by
    python train.py configs/kl_imagenet.py --batch-size 256 --compile-for v5e:16x16

    Args:
        factor: how much smaller latents are than pictures.
        judge: a run whose residual tower's features are compared, of pictures of this size.
        lpips: a safetensors file with LPIPS' VGG-16 instead, as the papers have it.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of both players' Adam for each example of the batch, constant.
        channels: of the codec's largest level.
        kl_weight: of the KL in nats, over the entries of a picture.
        perceptual: weight of the features' distance.
        adversarial: weight of the discriminator, beside the adaptive one; 0 leaves it out.
        start: steps before the discriminator joins, fewer than all.
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
        dataset: TFDS name of the pictures.
    """
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    f = int(factor)
    codec = KLAutoencoder(LATENTS[f], 3, channels, MULTIPLIERS[f], dtype=dtype)
    discriminator = PatchDiscriminator(min(channels, 64), layers=3, dtype=dtype)
    return KLTask(
        source=functools.partial(pictures, dataset),
        image_shape=(256, 256, 3),
        network=codec,
        kl_weight=kl_weight,
        judge=_judge(judge, lpips, perceptual),
        player=Player(discriminator, start, adversarial) if adversarial else None,
        augment=flip(),
        learning_rate=optax.constant_schedule(learning_rate * batch_size),
        optimizer=adam_of_players,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        needs=(judge,) if judge else (),
    )


def _judge(run: Path | None, lpips: Path | None, weight: float) -> Judge | None:
    if run and lpips:
        raise ValueError("--judge and --lpips were both given; name one of them.")
    if lpips:
        return lpips_judge(lpips, weight)
    return judge_of(run, weight) if run else None
