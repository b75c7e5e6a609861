"""unCLIP's decoder at the paper's size, 64x64, for a pod."""

import functools
from pathlib import Path

import jax.numpy as jnp
import optax

from diffusion_jax import (
    Ancestral,
    CosineBeta,
    Discrete,
    Gaussian,
    LearnedVariance,
    Uniform,
    learned_range,
    simple,
    table_time,
    trailing,
)
from diffusion_jax.data import joined, tfds_source
from diffusion_jax.models import (
    Embedding,
    Encoded,
    Joined,
    TextEncoder,
    Tokens,
    WithEmbedding,
    from_linen,
    unclip_64,
    with_time,
)
from diffusion_jax.training.embeddings import check_sizes, embeddings
from diffusion_jax.training.experiment import Experiment, hybrid

TABLE, VOCABULARY = 1000, 49_408


def recipe(
    clip: Path = Path("runs/clip"),
    dataset: str = "captioned_64",
    steps: int = 800_000,
    batch_size: int = 2048,
    seed: int = 0,
    learning_rate: float = 1.2e-4,
    features: int = 1024,
    length: int = 256,
    width: int = 2048,
    layers: int = 24,
    drop_embedding: float = 0.1,
    drop_text: float = 0.5,
    ema_decay: float = 0.9999,
    accumulate: int = 1,
    bfloat16: bool = True,
) -> Experiment:
    """The decoder of Ramesh et al. 2022, table 3: 3.7 B parameters, for a pod.

    A run of configs/clip.py says the embeddings and the tokens, of ViT-L/14 with --features 768
    --length 77. The data are its pictures, in the same order, at 64x64: a set that you prepare, in
    TFDS's layout. It hasn't been trained here; compiled for 256 v5p chips its step needs 51.3 GiB
    a chip (docs/unclip.md), as is said by
    python train.py configs/unclip_decoder.py --compile-for v5p:4x8x8

    Args:
        clip: a run of configs/clip.py.
        dataset: the name of the set of its pictures.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, constant.
        features: of the CLIP's embeddings.
        length: of the CLIP's texts.
        width: of the texts' encoder, a multiple of 64, which are a head.
        layers: of the texts' encoder.
        drop_embedding: probability that the embedding is dropped.
        drop_text: probability that the text is dropped.
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
        bfloat16: compute in bfloat16; parameters stay float32.
    """

    def source(split, data_dir):
        said = embeddings(clip, split, data_dir)
        check_sizes(clip, said, features, VOCABULARY, length)
        pictures = tfds_source(dataset, split, data_dir)
        return joined(pictures, image_embedding=said.images, tokens=said.tokens)

    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    text = TextEncoder(VOCABULARY, width, layers, width // 64, length, dtype=dtype)
    network = Encoded(WithEmbedding(text), unclip_64(dtype))
    told = (Embedding(features, drop_embedding), Tokens(VOCABULARY, length, drop_text))
    return Experiment(
        source=source,
        image_shape=(64, 64, 3),
        model=with_time(from_linen(network), table_time(TABLE)),
        process=Gaussian(CosineBeta(TABLE)),
        parameterization=LearnedVariance(),
        conditioning=Joined(told),
        learning_rate=optax.constant_schedule(learning_rate),
        optimizer=optax.adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        make_loss=functools.partial(hybrid, steps=TABLE),
        times=Discrete(TABLE, Uniform()),
        weighting=simple,
        ema_decay=ema_decay,
        accumulate=accumulate,
        sampler=Ancestral(learned_range),
        grid=functools.partial(trailing, steps=TABLE),
        guidance=2.0,
        needs=(clip,),
    )
