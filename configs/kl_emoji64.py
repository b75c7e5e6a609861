"""A KL autoencoder of emoji, 64x64 to 16x16 latents of 4 channels (f4).

    python train.py configs/emoji64_clip.py
    python train.py configs/kl_emoji64.py --judge runs/emoji64_clip
    python benchmarks/codec_quality.py runs/kl_emoji64

3,000 steps took 68 minutes on one core: 28.8 dB on the test split, Fréchet distance 0.0025
(docs/latent.md).
"""

from pathlib import Path

from diffusion_jax.data import in_memory, tfds_source
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.training.optimizers import adam_of_players, warmed_up_cosine
from diffusion_jax.training.picture_codecs import KLTask, Player, judge_of


def recipe(
    judge: Path | None = None,
    steps: int = 3000,
    batch_size: int = 16,
    seed: int = 0,
    learning_rate: float = 1e-3,
    latents: int = 4,
    channels: int = 16,
    kl_weight: float = 1e-6,
    perceptual: float = 1.0,
    adversarial: float = 0.5,
    start: int = 1500,
    ema_decay: float = 0.999,
) -> KLTask:
    """The codec of emoji for latent diffusion.

    Args:
        judge: a run whose residual tower's features are compared, such as one of
            configs/emoji64_groups.py; none compares pixels alone.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of both players' Adam, after a warm-up of 100 steps; falls to 0 as a cosine.
        latents: channels of the latents.
        channels: of the codec's largest level; the others have 3 and 6 times as many.
        kl_weight: of the KL in nats, over the entries of a picture.
        perceptual: weight of the features' distance.
        adversarial: weight of the discriminator, beside the adaptive one; 0 leaves it out.
        start: steps before the discriminator joins, fewer than all.
        ema_decay: of the averaged parameters.
    """

    def source(split, data_dir):
        return in_memory(tfds_source("emoji64", split, data_dir, label="group"))

    discriminator = PatchDiscriminator(2 * channels, layers=2)
    return KLTask(
        source=source,
        image_shape=(64, 64, 3),
        network=KLAutoencoder(latents, 3, channels, (1, 3, 6), 1, groups=8),
        kl_weight=kl_weight,
        judge=judge_of(judge, perceptual) if judge else None,
        player=Player(discriminator, start, adversarial) if adversarial else None,
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adam_of_players,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        needs=(judge,) if judge else (),
    )
