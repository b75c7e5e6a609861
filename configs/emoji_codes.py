"""Emoji from texts, 64x64, code by code: an autoregressive transformer over a codec's codes.

    python train.py configs/emoji64_clip.py                            # its words, not its weights
    python train.py configs/vq_emoji64.py --judge runs/emoji64_clip
    python train.py configs/emoji_codes.py --codec runs/vq_emoji64
    python sample.py runs/emoji_codes --prompt "cat face, in noto style" --top-k 100

Not trained to its end yet: 1,000 steps are in docs/latent.md; steps and sizes are first guesses.
"""

import math
from pathlib import Path

from diffusion_jax.models import Tokens
from diffusion_jax.models.code_transformer import CodeTransformer
from diffusion_jax.models.conditioning import ClassLabels, Joined
from diffusion_jax.training.code_pictures import CodeTask
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.latents import codes, load_vq
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine

GROUPS = 10


def recipe(
    clip: Path = Path("runs/emoji64_clip"),
    codec: Path = Path("runs/vq_emoji64"),
    steps: int = 2000,
    batch_size: int = 16,
    seed: int = 0,
    learning_rate: float = 5e-4,
    vocabulary: int = 2048,
    length: int = 32,
    groups: bool = False,
    width: int = 128,
    layers: int = 4,
    drop: float = 0.1,
    ema_decay: float = 0.999,
) -> CodeTask:
    """Emoji from texts, or from their group.

    Args:
        clip: a run of configs/emoji64_clip.py, whose tokens of the texts are taken.
        codec: a run of configs/vq_emoji64.py.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters and data order.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        vocabulary: of the CLIP's texts.
        length: of the CLIP's texts.
        groups: it's told the group, one of ten, as well.
        width: of the transformer, a multiple of 32, which are a head.
        layers: of the transformer.
        drop: probability that what it's told is dropped; of both, each, and both together.
        ema_decay: of the averaged parameters.
    """
    task = load_vq(codec)
    size = task.latent_shape[:2]

    def source(split, data_dir):
        return codes(codec, load_clip_task(clip).source(split, data_dir))

    text = Tokens(vocabulary, length, drop)
    return CodeTask(
        source=source,
        image_shape=size,
        network=CodeTransformer(
            math.prod(size),
            task.network.codes,
            width,
            layers,
            width // 32,
            vocabulary=vocabulary,
            length=length,
        ),
        conditioning=Joined((text, ClassLabels(GROUPS, drop)), drop) if groups else text,
        tokenizer=lambda data_dir: load_clip_task(clip).tokenizer(data_dir),
        codec=codec,
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        guidance=2.0,
        top_k=100,
        needs=(clip, codec),
    )
