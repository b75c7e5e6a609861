"""The groups of emoji from their labels: the network of emoji64_clip.py, trained supervised.

python train.py configs/emoji64_groups.py
python benchmarks/clip_robustness.py runs/emoji64_clip --supervised runs/emoji64_groups
"""

import functools
from pathlib import Path
from typing import Literal

from diffusion_jax.data import EMOJI_STYLES, Source, crop, in_memory, subset, tfds_source
from diffusion_jax.models.classifier import Classified
from diffusion_jax.models.clip import emoji_tower
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine
from diffusion_jax.training.supervised import Supervised

GROUPS = 9


def emoji(styles: tuple[str, ...], split: str, data_dir: Path | None) -> Source:
    """The pictures of these styles, in memory."""
    wanted = {EMOJI_STYLES.index(style) for style in styles}
    source = tfds_source("emoji64", split, data_dir, label="group")
    kept = [i for i in range(len(source)) if source[i]["style"] in wanted]
    return in_memory(subset(source, kept))


def recipe(
    steps: int = 300,
    batch_size: int = 256,
    seed: int = 0,
    learning_rate: float = 1e-3,
    tower: Literal["resnet", "vit"] = "resnet",
    width: int = 128,
    layers: int = 4,
    styles: tuple[str, ...] = EMOJI_STYLES[1:],
    ema_decay: float = 0.99,
) -> Supervised:
    """The nine groups of emoji; by default fluent3d is left out, to be seen first in the test.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters and data order.
        learning_rate: of AdamW, after a warm-up of at most 100 steps; falls to 0 as a cosine.
        tower: of the pictures.
        width: of the tower, if it's a transformer.
        layers: of the tower, if it's a transformer.
        styles: whose pictures are learned from.
        ema_decay: of the averaged parameters.
    """
    return Supervised(
        source=functools.partial(emoji, styles),
        image_shape=(64, 64, 3),
        network=Classified(emoji_tower(tower, width, layers), GROUPS),
        augment=crop(0.8),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=functools.partial(adamw, weight_decay=0.1),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
