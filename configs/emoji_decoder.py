"""unCLIP's decoder on emoji, 32x32: from a CLIP embedding of a picture, and its text, to one.

    python train.py configs/emoji64_clip.py
    python train.py configs/emoji_decoder.py --clip runs/emoji64_clip

4,500 steps took 75 minutes beside other work on two cores. A judge takes what it draws of held-out
pictures' own embeddings for their concept, one of 78, in 48 % (docs/unclip.md).
"""

from pathlib import Path

from diffusion_jax import DDIM, Gaussian, Rectified, V
from diffusion_jax.data import in_memory, joined, shrunk
from diffusion_jax.models import (
    Embedding,
    Encoded,
    Joined,
    Located,
    Patched,
    TextEncoder,
    Tokens,
    WithEmbedding,
    from_linen,
    patches_unet,
    with_time,
)
from diffusion_jax.training.embeddings import check_sizes, embeddings, load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine


def recipe(
    clip: Path = Path("runs/emoji64_clip"),
    steps: int = 4500,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    features: int = 128,
    vocabulary: int = 2048,
    length: int = 32,
    size: int = 32,
    factor: int = 2,
    channels: int = 48,
    drop_embedding: float = 0.1,
    drop_text: float = 0.5,
    ema_decay: float = 0.999,
) -> Experiment:
    """The decoder of emoji.

    Args:
        clip: a run of configs/emoji64_clip.py.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        features: of the CLIP's embeddings.
        vocabulary: of the CLIP's texts.
        length: of the CLIP's texts.
        size: height and width of what is drawn.
        factor: how much larger the CLIP's pictures are.
        channels: of the U-Net's first level.
        drop_embedding: probability that the embedding is dropped.
        drop_text: probability that the text is dropped.
        ema_decay: of the averaged parameters.
    """

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, vocabulary, length)
        pictures = shrunk(load_clip_task(clip).source(split, data_dir), factor)
        return in_memory(joined(pictures, image_embedding=said.images))

    text = TextEncoder(vocabulary, width=64, layers=2, heads=4, length=length)
    pictures = Patched(Located(patches_unet((size // 4, size // 8), channels)))
    network = Encoded(WithEmbedding(text), pictures)
    told = (Embedding(features, drop_embedding), Tokens(vocabulary, length, drop_text))
    return Experiment(
        source=source,
        image_shape=(size, size, 3),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Rectified(shift=2.0)),
        parameterization=V(),
        conditioning=Joined(told),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        sampler=DDIM(eta=1.0),
        guidance=2.0,
        needs=(clip,),
    )
