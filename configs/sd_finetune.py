"""Stable Diffusion 1.x or 2.x, trained on from a folder's weights.

python train.py configs/sd_finetune.py --folder FOLDER --dataset NAME
python -m diffusion_jax.interop.sd_training runs/sd_finetune FOLDER2
python sample.py --checkpoint FOLDER2 --prompt TEXT
"""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax import DDIM, table_time
from diffusion_jax.data import BytePairs, caption_alone, captioned, collapse, flip, tfds_source
from diffusion_jax.interop.sd_training import (
    CheckpointCodec,
    FineTuning,
    ReadText,
    grid,
    modules,
    trained,
)
from diffusion_jax.models import from_linen, with_time
from diffusion_jax.models.stack import Remat
from diffusion_jax.timesteps import Discrete, Uniform
from diffusion_jax.training.optimizers import adamw


def recipe(
    folder: Path,
    dataset: str,
    size: int = 512,
    steps: int = 10_000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 1e-5,
    drop_text: float = 0.1,
    shown: str = "train",
    flipped: bool = True,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
    remat: Remat = "full",
) -> FineTuning:
    """A checkpoint's U-Net, trained on captioned pictures; its codec and text encoder stay.

    Every step encodes its pictures and reads their captions. On a slice the U-Net, its moments and
    its average are cut by --fsdp: 13.8 GB for Stable Diffusion 1.5, in float32.

    Args:
        folder: a pipeline of Stable Diffusion 1.x or 2.x, as diffusers has it.
        dataset: a TFDS set with "image", uint8 of this size, and "caption", of which 75 tokens are
            read.
        size: height and width of its pictures, a multiple of 64 for the published sizes.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of data order and noise.
        learning_rate: of AdamW, constant after a warm-up of 100 steps.
        drop_text: probability that a caption is dropped (classifier-free guidance).
        shown: split of the captions that are drawn on the way, such as "test" where there is one.
        flipped: half of the pictures are, left to right.
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: the U-Net computes in bfloat16; parameters stay float32.
        remat: of the U-Net's transformers: "none" keeps every softmax for the gradient.
    """
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    unet, codec, features = modules(folder, dtype=dtype, remat=remat)
    how = trained(folder)
    words = BytePairs.from_folder(folder / "tokenizer", truncate=True, clean=collapse)

    def source(split, data_dir):
        chosen = shown if split == "test" else split
        return captioned(tfds_source(dataset, chosen, data_dir), words, caption_alone, 1)

    return FineTuning(
        source=source,
        image_shape=(size, size, 3),
        latent_shape=(size // codec.factor, size // codec.factor, codec.latents),
        codec=CheckpointCodec(folder),
        folder=folder,
        model=with_time(from_linen(unet), table_time(how.steps)),
        process=how.process,
        parameterization=how.parameterization,
        conditioning=ReadText(words, drop_text, size=features),
        times=Discrete(how.steps, Uniform()),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 100),
        optimizer=functools.partial(adamw, weight_decay=0.01),
        augment=flip() if flipped else None,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=DDIM(),
        grid=grid(folder),
        guidance=7.5,
    )
