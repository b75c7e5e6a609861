"""A vector-quantised autoencoder of emoji, 64x64 to 16x16 codes (f4).

    python train.py configs/emoji64_clip.py
    python train.py configs/vq_emoji64.py --judge runs/emoji64_clip
    python benchmarks/codec_quality.py runs/vq_emoji64

1,800 steps on one core: 23.4 dB on the test split, Fréchet distance 0.0084, 93.9 % of the codes
used (docs/latent.md).
"""

from pathlib import Path

from diffusion_jax.data import in_memory, tfds_source
from diffusion_jax.models.autoencoder import VQAutoencoder
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.training.optimizers import adam_of_players, warmed_up_cosine
from diffusion_jax.training.picture_codecs import Player, VQTask, judge_of


def recipe(
    judge: Path | None = None,
    steps: int = 1800,
    batch_size: int = 16,
    seed: int = 0,
    learning_rate: float = 1e-3,
    codes: int = 512,
    features: int = 8,
    channels: int = 16,
    commitment: float = 1.0,
    revival: float = 1.0,
    perceptual: float = 1.0,
    adversarial: float = 0.5,
    start: int = 900,
    ema_decay: float = 0.999,
) -> VQTask:
    """The codec of emoji for models of codes.

    Args:
        judge: a run whose residual tower's features are compared, such as one of
            configs/emoji64_groups.py; none compares pixels alone.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters and data order.
        learning_rate: of both players' Adam, after a warm-up of 100 steps; falls to 0 as a cosine.
        codes: entries of the codebook.
        features: of an entry.
        channels: of the codec's largest level; the others have 3 and 6 times as many.
        commitment: weight of the encoder's distance from its codes; with 0.25 it ran away from them
            in the first hundred steps.
        revival: weight of what brings lost codes back.
        perceptual: weight of the features' distance.
        adversarial: weight of the discriminator, beside the adaptive one; 0 leaves it out.
        start: steps before the discriminator joins, fewer than all.
        ema_decay: of the averaged parameters.
    """

    def source(split, data_dir):
        return in_memory(tfds_source("emoji64", split, data_dir, label="group"))

    discriminator = PatchDiscriminator(2 * channels, layers=2)
    return VQTask(
        source=source,
        image_shape=(64, 64, 3),
        network=VQAutoencoder(codes, features, 3, channels, (1, 3, 6), 1, groups=8),
        commitment=commitment,
        revival=revival,
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
