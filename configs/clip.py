"""CLIP at the published sizes, on captioned pictures of your own, for a pod."""

import functools
from pathlib import Path
from typing import Literal

import jax.numpy as jnp

from diffusion_jax.data import BytePairs, Source, caption_alone, captioned, crop, tfds_source
from diffusion_jax.losses import sigmoid_objective, softmax_objective
from diffusion_jax.models.clip import CLIP, CLIP_SIZES, published_clip
from diffusion_jax.models.stack import Remat
from diffusion_jax.training.contrastive import Contrastive
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine
from diffusion_jax.types import Tokenizer

Size = Literal["RN50", "RN101", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336"]
RATES: dict[Size, float] = {"ViT-L/14": 4e-4, "ViT-L/14@336": 2e-5}  # others: 5e-4
LENGTH = 77


def byte_pairs(vocabulary: Path | None, data_dir: Path | None) -> Tokenizer:
    """CLIP's tokenizer, which cuts what is too long."""
    if vocabulary is None:
        raise ValueError(
            "CLIP's captions need its vocabulary: --vocabulary bpe_simple_vocab_16e6.txt.gz"
        )
    return BytePairs.from_vocabulary(vocabulary, length=LENGTH, truncate=True)


def pairs(vocabulary: Path | None, dataset: str, split: str, data_dir: Path | None) -> Source:
    """The set's pictures with their captions as tokens."""
    tokenizer = byte_pairs(vocabulary, data_dir)
    return captioned(tfds_source(dataset, split, data_dir), tokenizer, caption_alone, 1)


def recipe(
    size: Size = "ViT-B/32",
    steps: int = 390_000,
    batch_size: int = 32_768,
    seed: int = 0,
    learning_rate: float | None = None,
    objective: Literal["softmax", "sigmoid"] = "softmax",
    chunk: int = 1024,
    dataset: str = "captioned_224",
    vocabulary: Path | None = None,
    bfloat16: bool = True,
    remat: Remat = "full",
    ema_decay: float = 0.999,
) -> Contrastive:
    """CLIP as in Radford et al. 2021, tables 18 to 20.

    The data are a set that you prepare, in TFDS's layout: an "image" of the size's height and
    width, and a text "caption". What a step needs on a TPU slice:
    python train.py configs/clip.py --size ViT-L/14 --compile-for v5e:16x16

    Args:
        size: of the published ones.
        steps: training steps; the paper's are 32 epochs of 400 M pairs.
        batch_size: pairs a step, over all devices.
        seed: of parameters and data order.
        learning_rate: of AdamW, after a warm-up of 2,000 steps; falls to 0 as a cosine (default:
            the paper's for this size).
        objective: the paper's, or SigLIP's.
        chunk: captions whose logits are in memory at a time.
        dataset: its name.
        vocabulary: the file of byte pairs.
        bfloat16: compute in bfloat16; parameters, norms' statistics, softmax and loss are float32.
        remat: what the transformers compute again in the backward pass.
        ema_decay: of the averaged parameters.
    """
    of = softmax_objective if objective == "softmax" else sigmoid_objective
    clip = published_clip(size, remat=remat, dtype=jnp.bfloat16 if bfloat16 else jnp.float32)
    pixels = CLIP_SIZES[size].image_size
    second, epsilon = (0.999, 1e-8) if size.startswith("RN") else (0.98, 1e-6)
    peak = RATES.get(size, 5e-4) if learning_rate is None else learning_rate
    return Contrastive(
        source=functools.partial(pairs, vocabulary, dataset),
        image_shape=(pixels, pixels, 3),
        clip=CLIP(clip.image, clip.text, bias=objective == "sigmoid"),
        tokenizer=functools.partial(byte_pairs, vocabulary),
        length=LENGTH,
        objective=functools.partial(of, chunk=chunk),
        augment=crop(0.9),
        learning_rate=warmed_up_cosine(peak, steps, warmup=2000),
        optimizer=functools.partial(adamw, weight_decay=0.2, b2=second, epsilon=epsilon),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
