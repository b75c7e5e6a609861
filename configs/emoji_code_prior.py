"""unCLIP's autoregressive prior on emoji: from a text to a CLIP embedding, a code at a time.

    python train.py configs/emoji64_clip.py
    python train.py configs/emoji_code_prior.py --clip runs/emoji64_clip

1,500 steps took 20 minutes on two cores, and weren't enough: of 6.93 nats a code it explains 1.2,
and the better of two draws has a cosine of 0.26 with a held-out picture's embedding
(docs/unclip.md).
"""

from pathlib import Path

from diffusion_jax.models import CodePrior, Prompt
from diffusion_jax.training.embeddings import check_sizes, embeddings
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine
from diffusion_jax.training.priors import CodePriorTask, coded, fitted


def recipe(
    clip: Path = Path("runs/emoji64_clip"),
    steps: int = 1500,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 5e-4,
    features: int = 128,
    vocabulary: int = 2048,
    length: int = 32,
    codes: int = 64,
    buckets: int = 1024,
    alignments: int = 16,
    width: int = 128,
    layers: int = 4,
    drop_text: float = 0.1,
    ema_decay: float = 0.999,
) -> CodePriorTask:
    """The autoregressive prior of emoji.

    Args:
        clip: a run of configs/emoji64_clip.py.
        steps: training steps.
        batch_size: embeddings a step, over all devices.
        seed: of parameters, data order and the choice of texts.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        features: of the CLIP's embeddings.
        vocabulary: of the CLIP's texts.
        length: of the CLIP's texts.
        codes: principal components that are kept.
        buckets: of each component.
        alignments: buckets of the text's and the picture's dot product.
        width: of the transformer, a multiple of 32, which are a head.
        layers: of the transformer.
        drop_text: probability that what is known of the text is dropped.
        ema_decay: of the averaged parameters.
    """

    def fit(data_dir):
        return fitted(clip, data_dir, codes, buckets, alignments)

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, vocabulary, length)
        return coded(f"{clip.name}'s {split} split", said, fit(data_dir))

    return CodePriorTask(
        source=source,
        image_shape=(features,),
        network=CodePrior(
            features,
            vocabulary,
            length,
            width,
            layers,
            width // 32,
            count=codes,
            buckets=buckets,
            alignments=alignments,
        ),
        conditioning=Prompt(vocabulary, length, features, drop_text),
        fit=fit,
        needs=(clip,),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
