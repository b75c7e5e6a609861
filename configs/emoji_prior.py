"""unCLIP's diffusion prior on emoji: from a text to a CLIP embedding of a picture.

    python train.py configs/emoji64_clip.py
    python train.py configs/emoji_prior.py --clip runs/emoji64_clip

1,500 steps took 22 minutes on two cores. The better of two draws has a cosine of 0.40 with the
embedding of a held-out picture (docs/unclip.md).
"""

from pathlib import Path

from diffusion_jax import DDIM, X0, Cosine, Gaussian
from diffusion_jax.models import DiffusionPrior, Prompt, from_linen, with_time
from diffusion_jax.training.embeddings import check_sizes, embeddings, vectors
from diffusion_jax.training.experiment import Experiment, unfinished
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine


def recipe(
    clip: Path = Path("runs/emoji64_clip"),
    steps: int = 1500,
    batch_size: int = 256,
    seed: int = 0,
    learning_rate: float = 5e-4,
    features: int = 128,
    vocabulary: int = 2048,
    length: int = 32,
    width: int = 128,
    layers: int = 4,
    drop_text: float = 0.1,
    ema_decay: float = 0.999,
) -> Experiment:
    """The diffusion prior of emoji.

    Args:
        clip: a run of configs/emoji64_clip.py.
        steps: training steps.
        batch_size: embeddings a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        features: of the CLIP's embeddings.
        vocabulary: of the CLIP's texts.
        length: of the CLIP's texts.
        width: of the transformer, a multiple of 32, which are a head.
        layers: of the transformer.
        drop_text: probability that text and embedding are dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
    """

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, vocabulary, length)
        return vectors(f"{clip.name}'s {split} split", said)

    network = DiffusionPrior(features, vocabulary, length, width, layers, width // 32)
    return Experiment(
        source=source,
        image_shape=(features,),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Cosine()),
        parameterization=X0(),
        conditioning=Prompt(vocabulary, length, features, drop_text),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        finish=unfinished,
        sampler=DDIM(),
        needs=(clip,),
    )
