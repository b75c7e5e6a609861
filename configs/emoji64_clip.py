"""CLIP of emoji and their names, 64x64, four drawing styles.

python train.py configs/emoji64_clip.py
python benchmarks/clip_emoji.py runs/emoji64_clip
"""

import functools
import itertools
from pathlib import Path
from typing import Literal

from diffusion_jax.data import (
    Source,
    Words,
    captioned,
    crop,
    emoji_texts,
    in_memory,
    tfds_source,
)
from diffusion_jax.losses import softmax_objective
from diffusion_jax.models.clip import CLIP, TextTransformer, emoji_tower
from diffusion_jax.training.contrastive import Contrastive
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine
from diffusion_jax.types import Tokenizer

LENGTH, WORDS, TEXTS = 32, 2048, 5


@functools.cache
def words(split: str, data_dir: Path | None) -> Tokenizer:
    """The words that are common enough in a split's texts; others are unknown."""
    source = tfds_source("emoji64", split, data_dir, label="group")
    texts = itertools.chain.from_iterable(emoji_texts(source[i]) for i in range(len(source)))
    return Words.from_texts(texts, length=LENGTH, most=WORDS - 4, least=20, unknown=True)


def emoji(tokenizer: Tokenizer, split: str, data_dir: Path | None) -> Source:
    """The pictures in memory, with their texts as tokens."""
    source = tfds_source("emoji64", split, data_dir, label="group")
    return in_memory(captioned(source, tokenizer, emoji_texts, TEXTS))


def recipe(
    split: str = "train",
    steps: int = 900,
    batch_size: int = 256,
    seed: int = 0,
    learning_rate: float = 1e-3,
    tower: Literal["resnet", "vit"] = "resnet",
    width: int = 128,
    layers: int = 4,
    ema_decay: float = 0.99,
) -> Contrastive:
    """CLIP of emoji.

    Args:
        split: of the set, which it learns from; "train+test" makes a judge of other models, which
            has seen every concept.
        steps: training steps.
        batch_size: pairs a step, over all devices.
        seed: of parameters, data order and the choice of texts.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        tower: of the pictures.
        width: of the pictures' tower, if it's a transformer.
        layers: of the pictures' tower, if it's a transformer.
        ema_decay: of the averaged parameters.
    """
    text = TextTransformer(128, WORDS, LENGTH, 128, layers=2, heads=4, end=2)
    tokenizer = functools.partial(words, split)

    def source(which: str, data_dir: Path | None) -> Source:
        return emoji(tokenizer(data_dir), split if which == "train" else which, data_dir)

    return Contrastive(
        source=source,
        image_shape=(64, 64, 3),
        clip=CLIP(emoji_tower(tower, width, layers), text),
        tokenizer=tokenizer,
        length=LENGTH,
        texts=TEXTS,
        objective=softmax_objective,
        augment=crop(0.8),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=functools.partial(adamw, weight_decay=0.1),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
