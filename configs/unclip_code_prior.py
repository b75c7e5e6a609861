"""unCLIP's autoregressive prior at the paper's size, for a pod."""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax.models import CodePrior, Prompt
from diffusion_jax.models.stack import Remat
from diffusion_jax.training.embeddings import check_sizes, embeddings
from diffusion_jax.training.optimizers import adamw
from diffusion_jax.training.priors import CodePriorTask, coded, fitted

VOCABULARY = 49_408


def recipe(
    clip: Path = Path("runs/clip"),
    steps: int = 1_000_000,
    batch_size: int = 4096,
    seed: int = 0,
    learning_rate: float = 1.6e-4,
    features: int = 1024,
    length: int = 77,
    codes: int = 319,
    buckets: int = 1024,
    alignments: int = 16,
    width: int = 1664,
    layers: int = 24,
    drop_text: float = 0.1,
    ema_decay: float = 0.999,
    bfloat16: bool = True,
    remat: Remat = "full",
) -> CodePriorTask:
    """The autoregressive prior of Ramesh et al. 2022, table 3: 0.9 B parameters, for a pod.

    It learns what a run of configs/clip.py says of its own pairs; of ViT-L/14 that is
    --features 768. The paper's 319 codes are of 1,024 features, and it doesn't say in how many
    buckets z_t . z_i is told. It hasn't been trained here; docs/unclip.md says what the step
    needs on a TPU slice, with
    python train.py configs/unclip_code_prior.py --compile-for v5e:16x16

    Args:
        clip: a run of configs/clip.py.
        steps: training steps.
        batch_size: embeddings a step, over all devices.
        seed: of parameters, data order and the choice of texts.
        learning_rate: of AdamW, constant.
        features: of the CLIP's embeddings.
        length: of the CLIP's texts.
        codes: principal components that are kept.
        buckets: of each component.
        alignments: buckets of the text's and the picture's dot product.
        width: of the transformer, a multiple of 64, which are a head.
        layers: of the transformer.
        drop_text: probability that what is known of the text is dropped.
        ema_decay: of the averaged parameters.
        bfloat16: compute in bfloat16; parameters stay float32.
        remat: what the blocks compute again in the backward pass.
    """

    def fit(data_dir):
        return fitted(clip, data_dir, codes, buckets, alignments)

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, VOCABULARY, length)
        return coded(f"{clip.name}'s {split} split", said, fit(data_dir))

    network = CodePrior(
        features,
        VOCABULARY,
        length,
        width,
        layers,
        width // 64,
        remat=remat,
        dtype=jnp.bfloat16 if bfloat16 else jnp.float32,
        count=codes,
        buckets=buckets,
        alignments=alignments,
    )
    return CodePriorTask(
        source=source,
        image_shape=(features,),
        network=network,
        conditioning=Prompt(VOCABULARY, length, features, drop_text),
        fit=fit,
        needs=(clip,),
        learning_rate=optax.constant_schedule(learning_rate),
        optimizer=functools.partial(adamw, weight_decay=0.04, b2=0.91, epsilon=1e-10),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
