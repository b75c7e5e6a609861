"""Stable Diffusion: texts, what guides, and latents, as `latent.LatentDiffusion`.

The U-Net reads each text token's features from one or two CLIP encoders; without guidance's
condition it reads those of another text, empty or negative:

    y = n + gamma (c - n)                                                                       (1)

Sources: Rombach et al. 2022 (arXiv:2112.10752); Podell et al. 2023, SDXL (arXiv:2307.01952).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.denoisers import denoiser_from
from diffusion_jax.guidance import classifier_free_fused
from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.types import (
    Condition,
    Denoiser,
    Parameterization,
    Params,
    Process,
    Sampler,
    Scalar,
    Time,
)


class Texts(NamedTuple):
    """What encoders said of texts.

    Attributes:
        tokens: [b n d], of all encoders side by side.
        pooled: [b e], the last encoder's; SDXL reads it.
    """

    tokens: Float[Array, "b n d"]
    pooled: Float[Array, "b e"]


Layer = Literal["last", "penultimate"]


def read_texts(
    encoders: Sequence[tuple[Any, Params, Layer]],
    ids: Sequence[Int[Array, "b chunks n"]],
    weights: Sequence[Float[Array, "b chunks n"]],
) -> Texts:
    """Texts in chunks, by each encoder, side by side.

    A token's features are multiplied by its weight, and all of a text then by one number, so that
    their mean square is what it was.

    Args:
        encoders: (CLIP, its parameters, which layer's features are read).
        ids: of each encoder's tokenizer; equally many chunks of all.
        weights: of each token.

    Raises:
        ValueError: numbers of encoders and texts that differ.
    """
    if not len(encoders) == len(ids) == len(weights):
        raise ValueError(f"{len(encoders)} encoders can't read {len(ids)} lists of texts.")
    features, pooled = [], []
    for (clip, params, layer), tokens, weight in zip(encoders, ids, weights, strict=True):
        b, chunks, n = tokens.shape
        flat = tokens.reshape(b * chunks, n)
        said = clip.apply({"params": params}, flat, method="encode_text")
        h = said.tokens if layer == "last" else said.penultimate
        h = h.reshape(b, chunks * n, -1)
        weighted = h * weight.reshape(b, chunks * n, 1)
        size, new = (jnp.sum(x**2, axis=(1, 2), keepdims=True) for x in (h, weighted))
        features.append(weighted * jnp.sqrt(size / jnp.maximum(new, 1e-12)))
        pooled.append(said.pooled.reshape(b, chunks, -1)[:, 0])
    return Texts(jnp.concatenate(features, axis=-1), pooled[-1])


def text_stage(
    unet: Any,
    params: Params,
    process: Process,
    parameterization: Parameterization,
    *,
    told: Callable[[Time], Array],
    shape: tuple[int, int, int],
    sampler: Sampler,
    times: Array,
    guidance: Scalar | None = 7.5,
) -> Stage:
    """A `LatentUNet` as a stage.

    It is told "tokens" [b n d] and, for equation (1), "negative" [b n d]; of SDXL "vector" [b e]
    and "negative_vector" too; for inpainting by concatenation "image" [b h w 5].

    Args:
        unet: the network.
        params: its parameters.
        process, parameterization: of its training.
        told: what the network is told of t: `table_time`.
        shape: of the latents.
        sampler: walks `times`.
        times: descending.
        guidance: gamma; None is none, for half the work.
    """

    def network(params: Params) -> Callable[[Array, Array, Condition], Array]:
        return lambda x, t, condition: unet.apply({"params": params}, x, told(t), condition)

    def denoiser(params: Params, known: Known, guidance: Scalar | None) -> Denoiser:
        run = network(params)
        condition = Condition(known.get("vector"), known["tokens"], None, known.get("image"))
        if guidance is None:
            return denoiser_from(lambda x, t: run(x, t, condition), process, parameterization)
        null = condition._replace(vector=known.get("negative_vector"), tokens=known["negative"])
        return denoiser_from(
            classifier_free_fused(run, condition, null, guidance), process, parameterization
        )

    return Stage(denoiser, params, process, shape, sampler, times, guidance)


def size_vector(
    pooled: Float[Array, "b e"],
    original: tuple[int, int],
    corner: tuple[int, int],
    last: Sequence[int | float],
) -> Float[Array, "b e+4+{len(last)}"]:
    """SDXL's vector: the pooled text, the original picture's height and width, the crop's top and
    left, and what comes last.

    Args:
        pooled: features of the texts.
        original, corner: in pixels.
        last: height and width of what is drawn; of the refiner a score of how pleasing it is.

    Source: Podell et al. 2023, section 2.2.
    """
    sizes = jnp.asarray([*original, *corner, *last], jnp.float32)
    rows = jnp.broadcast_to(sizes[None], (len(pooled), len(sizes)))
    return jnp.concatenate([pooled, rows], axis=1)
