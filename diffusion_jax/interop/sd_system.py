"""A checkpoint's parts as a system that draws pictures of texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.data import BytePairs, collapse
from diffusion_jax.data.prompts import WeightedTokens, weighted_tokens
from diffusion_jax.denoisers import table_time
from diffusion_jax.interop.sd_config import REFINER_SIZES, SDXL_SIZES
from diffusion_jax.interop.sd_scheduler import Walk, in_pipeline, read_grid, read_walk
from diffusion_jax.interop.sd_table import read_trained
from diffusion_jax.interop.stable_diffusion import TOKENIZERS, StableDiffusion
from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.latent import LatentDiffusion, codec_of
from diffusion_jax.systems.stable_diffusion import Texts, read_texts, size_vector, text_stage
from diffusion_jax.types import Sampler, Scalar

Ids = Int[Array, "b chunks n"]


def system_of(
    parts: StableDiffusion,
    size: tuple[int, int],
    *,
    steps: int = 50,
    guidance: Scalar | None = 7.5,
    sampler: Sampler | None = None,
) -> LatentDiffusion:
    """The system of a checkpoint.

    Args:
        parts: of `load_stable_diffusion`.
        size: height and width of the pictures.
        steps: of the sampler, on the grid that scheduler_config.json names.
        guidance: gamma; None is none, for half the work.
        sampler: by default the one that scheduler_config.json names.

    Raises:
        ValueError: a size that isn't a multiple of what codec and U-Net halve, a table or a
            prediction that isn't known, or, without `sampler`, one that can't be followed.
    """
    trained = read_trained(parts.scheduler)
    walk = walk_of(parts, steps, sampler)
    codec, unet = parts.codec.module, parts.unet.module
    step = codec.factor * 2 ** (len(unet.channels) - 1)
    if size[0] % step or size[1] % step or min(size) < step:
        raise ValueError(
            f"pictures of {size[0]}x{size[1]} can't be drawn by this checkpoint; height and width "
            f"must be multiples of {step}."
        )
    stage = text_stage(
        unet,
        parts.unet.params,
        trained.process,
        trained.parameterization,
        told=walk.told,
        shape=(size[0] // codec.factor, size[1] // codec.factor, codec.latents),
        sampler=walk.sampler,
        times=walk.times,
        guidance=guidance,
    )
    scaled = codec_of(codec, parts.codec.params, scale=parts.scale, shift=parts.shift)
    return LatentDiffusion(stage, scaled)


def walk_of(parts: StableDiffusion, steps: int, sampler: Sampler | None = None) -> Walk:
    """How the checkpoint's pipeline of diffusers samples, or another sampler on its grid.

    Raises:
        ValueError: as `read_walk`, or with `sampler` as `read_grid` and `read_trained`.
    """
    xl = "XL" if parts.unet.module.sizes > 0 else ""
    pipeline = parts.pipeline.get("_class_name", f"StableDiffusion{xl}Pipeline")
    config = in_pipeline(parts.scheduler, pipeline)
    if sampler is None:
        return read_walk(config, steps)
    told = table_time(read_trained(config).steps)
    return Walk(read_grid(config, steps), sampler, told)


def load_tokenizers(folder: str | os.PathLike[str], parts: StableDiffusion) -> list[BytePairs]:
    """The tokenizer of each text encoder.

    An encoder of a single file knows what fills its texts up, so that another one's tokenizer
    serves it too, and one for all; a folder's encoders have each a tokenizer that says it.

    Args:
        folder: with tokenizer/ (and tokenizer_2/).
        parts: of `load_stable_diffusion` or `load_single_file`.

    Raises:
        FileNotFoundError: there are too few.
    """
    return tokenizers_of(
        folder, [(one.module.text.length, one.config.get("pad_token_id")) for one in parts.texts]
    )


def tokenizers_of(
    folder: str | os.PathLike[str], texts: Sequence[tuple[int, int | None]]
) -> list[BytePairs]:
    """As `load_tokenizers`, for encoders of such lengths, and ids that fill their texts up."""
    present = [Path(folder) / name for name in TOKENIZERS if (Path(folder) / name).is_dir()]
    if len(present) == 1 and all(pad is not None for _, pad in texts):
        present *= len(texts)
    if len(present) < len(texts):
        raise FileNotFoundError(
            f"{folder} has {len(present)} of the tokenizers ({', '.join(TOKENIZERS)}) for "
            f"{len(texts)} text encoders."
        )
    told = zip(present, texts, strict=False)
    return [
        BytePairs.from_folder(path, length=length, pad=pad, clean=collapse)
        for path, (length, pad) in told
    ]


def zeros_for_nothing(parts: StableDiffusion) -> bool:
    """Whether guidance without a negative text has zeros for its features: SDXL was trained so."""
    xl = parts.unet.module.sizes > 0
    return xl and bool(parts.pipeline.get("force_zeros_for_empty_prompt", True))


class Prompted(NamedTuple):
    """Texts and negative ones in equally many chunks, for each encoder.

    Attributes:
        texts, negative: of each tokenizer.
    """

    texts: tuple[WeightedTokens, ...]
    negative: tuple[WeightedTokens, ...]


def tokens_of(
    tokenizers: Sequence[BytePairs], texts: Sequence[str], negative: Sequence[str]
) -> Prompted:
    """Texts as the encoders read them, in as many chunks as the longest needs.

    Raises:
        ValueError: as `weighted_tokens`.
    """

    def tokens(some: Sequence[str], chunks: int | None) -> tuple[WeightedTokens, ...]:
        return tuple(weighted_tokens(one, some, chunks=chunks) for one in tokenizers)

    needed = [one.ids.shape[1] for some in (texts, negative) for one in tokens(some, None)]
    most = max(needed)
    return Prompted(tokens(texts, most), tokens(negative, most))


def told_of(
    parts: StableDiffusion,
    texts: Sequence[Ids],
    negative: Sequence[Ids],
    size: tuple[int, int],
    *,
    weights: Sequence[Any] | None = None,
    negative_weights: Sequence[Any] | None = None,
    original: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    scores: tuple[float, float] = (6.0, 2.5),
    zeros: bool = False,
) -> Known:
    """What the U-Net is told: "tokens" and "negative", and of SDXL "vector" and "negative_vector".

    Args:
        parts: whose text encoders read.
        texts, negative: ids of each encoder's tokenizer.
        size: height and width of the pictures.
        weights, negative_weights: of each token; 1 by default.
        original, corner: SDXL's original size, by default `size`, and the crop's top and left.
        scores: how pleasing pictures of the texts and of the negative texts are, from 1 to 10,
            which the refiner of SDXL is told instead of `size`.
        zeros: the negative texts' features are zeros, as `zeros_for_nothing` asks of empty ones.

    Raises:
        ValueError: a U-Net that is told other sizes than SDXL's six and its refiner's five.
    """
    sizes = parts.unet.module.sizes
    if sizes not in (0, REFINER_SIZES, SDXL_SIZES):
        raise ValueError(
            f"the U-Net is told {sizes} sizes; SDXL's {SDXL_SIZES} and its refiner's "
            f"{REFINER_SIZES} are known here."
        )
    xl = sizes > 0
    layer: Any = "penultimate" if xl else "last"
    encoders = [(part.module, part.params, layer) for part in parts.texts]

    def read(ids: Sequence[Ids], given: Sequence[Any] | None) -> Texts:
        plain = [jnp.ones(one.shape, jnp.float32) for one in ids]
        return read_texts(encoders, ids, plain if given is None else given)

    said, other = read(texts, weights), read(negative, negative_weights)
    if zeros:
        other = jax.tree.map(jnp.zeros_like, other)
    known = {"tokens": said.tokens, "negative": other.tokens}
    if xl:
        names = ("vector", "negative_vector")
        for name, one, score in zip(names, (said, other), scores, strict=True):
            last = (score,) if sizes == REFINER_SIZES else size
            known[name] = size_vector(one.pooled, original or size, corner, last)
    return known
