"""unCLIP's diffusion prior at the paper's size, for a pod."""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax import DDIM, X0, CosineBeta, Gaussian, table_time
from diffusion_jax.models import DiffusionPrior, Prompt, from_linen, with_time
from diffusion_jax.models.stack import Remat
from diffusion_jax.training.embeddings import check_sizes, embeddings, vectors
from diffusion_jax.training.experiment import Experiment, unfinished
from diffusion_jax.training.optimizers import adamw

TABLE, VOCABULARY = 1000, 49_408


def recipe(
    clip: Path = Path("runs/clip"),
    steps: int = 600_000,
    batch_size: int = 4096,
    seed: int = 0,
    learning_rate: float = 1.1e-4,
    features: int = 1024,
    length: int = 256,
    width: int = 2048,
    layers: int = 24,
    drop_text: float = 0.1,
    ema_decay: float = 0.9999,
    bfloat16: bool = True,
    remat: Remat = "full",
) -> Experiment:
    """The diffusion prior of Ramesh et al. 2022, table 3: 1.3 B parameters, for a pod.

    It learns what a run of configs/clip.py says of its own pairs; of ViT-L/14 that is
    --features 768 --length 77. It hasn't been trained here; docs/unclip.md says what the step
    needs on a TPU slice, with
    python train.py configs/unclip_prior.py --compile-for v5e:16x16

    Args:
        clip: a run of configs/clip.py.
        steps: training steps.
        batch_size: embeddings a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, constant.
        features: of the CLIP's embeddings.
        length: of the CLIP's texts.
        width: of the transformer, a multiple of 64, which are a head.
        layers: of the transformer.
        drop_text: probability that text and embedding are dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        bfloat16: compute in bfloat16; parameters stay float32.
        remat: what the blocks compute again in the backward pass.
    """

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, VOCABULARY, length)
        return vectors(f"{clip.name}'s {split} split", said)

    network = DiffusionPrior(
        features,
        VOCABULARY,
        length,
        width,
        layers,
        width // 64,
        remat=remat,
        dtype=jnp.bfloat16 if bfloat16 else jnp.float32,
    )
    return Experiment(
        source=source,
        image_shape=(features,),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(CosineBeta(TABLE)),
        parameterization=X0(),
        conditioning=Prompt(VOCABULARY, length, features, drop_text),
        learning_rate=optax.constant_schedule(learning_rate),
        optimizer=functools.partial(adamw, weight_decay=0.06, b2=0.96, epsilon=1e-6),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        finish=unfinished,
        sampler=DDIM(),
        needs=(clip,),
    )
