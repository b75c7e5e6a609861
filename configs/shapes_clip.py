"""CLIP of coloured shapes and their captions, 16x16: does it learn which colour is whose?

python train.py configs/shapes_clip.py
python benchmarks/clip_binding.py runs/shapes_clip
"""

import functools
from dataclasses import replace
from pathlib import Path

from diffusion_jax import Gaussian, Rectified
from diffusion_jax.data import SHAPES_WORDS, Source, caption_alone, captioned, in_memory, shapes
from diffusion_jax.models.clip import CLIP, TextTransformer, VisionTransformer
from diffusion_jax.training.contrastive import Contrastive
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine
from diffusion_jax.training.runs import load_params
from diffusion_jax.types import Tokenizer


def words(data_dir: Path | None) -> Tokenizer:
    """The words of the shapes' grammar."""
    return SHAPES_WORDS


def pictures(size: int, split: str, data_dir: Path | None) -> Source:
    """The pictures in memory, with their captions as tokens."""
    return in_memory(captioned(shapes(split, size), SHAPES_WORDS, caption_alone, 1))


def recipe(
    steps: int = 1000,
    batch_size: int = 128,
    seed: int = 0,
    learning_rate: float = 1e-3,
    size: int = 16,
    width: int = 128,
    layers: int = 2,
    noised: bool = False,
    start: Path | None = None,
    ema_decay: float = 0.99,
) -> Contrastive:
    """CLIP of coloured shapes; nothing to download.

    Args:
        steps: training steps.
        batch_size: pairs a step, over all devices.
        seed: of parameters and data order.
        learning_rate: of AdamW, after a warm-up of at most 100 steps; falls to 0 as a cosine.
        size: height and width of the pictures, a multiple of 16.
        width: of both towers.
        layers: of both towers.
        noised: show it pictures at all levels of the noise of configs/shapes_captions.py.
        start: a run of this recipe, whose averaged parameters to begin with.
        ema_decay: of the averaged parameters.
    """
    heads = width // 32
    image = VisionTransformer(width, width, layers, heads, patch=size // 4, image_size=size)
    length = SHAPES_WORDS.length
    text = TextTransformer(width, SHAPES_WORDS.size, length, width, layers, heads, end=2)
    task = Contrastive(
        source=functools.partial(pictures, size),
        image_shape=(size, size, 3),
        clip=CLIP(image, text),
        tokenizer=words,
        length=length,
        process=Gaussian(Rectified(shift=3.0)) if noised else None,
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=functools.partial(adamw, weight_decay=0.1),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
    return task if start is None else replace(task, start=load_params(task, start))
