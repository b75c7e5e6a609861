"""Guidance by CLIP: what a text says, as a log probability for `classifier_guidance`.

    log p(text | x) = <f(x), g(text)> + constant                                        (1)

for unit embeddings f of pictures and g of texts. Its gradient guides any sampler, in one of the two
ways of `classifier_guidance`, f(x_t, t) of an encoder that was trained on noised pictures, or
f(x0(x_t)) of any encoder, seen through the denoiser. The scale is the gradient's: CLIP's own
temperature of 1/100 is a scale of 100.

Of several texts that exclude one another, `class_log_probability` with the logits
100 f(x) @ texts.T is the classifier, and its label the text.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.classifier_guidance import LogProbability, classifier_guided, guided_by
from diffusion_jax.guidance import Scale
from diffusion_jax.schedules.base import at_least_float32
from diffusion_jax.types import Denoiser, GaussianProcess, Time

EncodeImage = Callable[[Array], Array]  # pixels [b h w c] in [-1, 1] -> unit embeddings [b d]
EncodeNoised = Callable[[Array, Time], Array]  # (pixels of x_t, t [b]) -> unit embeddings [b d]


def clip_similarity(
    encode_image: EncodeImage, text_embedding: Float[Array, "*b d"]
) -> LogProbability:
    """Equation (1) of an encoder that isn't told t, for `guided_by`.

    Args:
        encode_image: pixels [b h w c] -> [b d]; parameters are bound, and what is done to pictures
            before (a resize, crops whose embeddings are averaged).
        text_embedding: [d], or [b d], one for each example.

    Raises:
        ValueError: embeddings that don't agree in d, or in b.
    """
    return noised_clip_similarity(lambda pixels, t: encode_image(pixels), text_embedding)


def noised_clip_similarity(
    encode_noised: EncodeNoised, text_embedding: Float[Array, "*b d"]
) -> LogProbability:
    """Equation (1) of an encoder that sees x_t and t, for `classifier_guided`.

    Args:
        encode_noised: (pixels, t [b]) -> [b d].
        text_embedding: [d], or [b d].

    Raises:
        ValueError: embeddings that don't agree in d, or in b.
    """

    def log_probability(pixels: Array, t: Time) -> Float[Array, " b"]:
        image = encode_noised(pixels, t)
        text = jnp.asarray(text_embedding)
        if image.ndim != 2 or text.shape not in (image.shape, image.shape[1:]):
            raise ValueError(
                f"the picture's embedding has shape {image.shape} and the text's {text.shape}; "
                "they must be [b d], and [d] or [b d]."
            )
        text = jnp.broadcast_to(text, image.shape)
        return jnp.sum(at_least_float32(image) * at_least_float32(text), axis=1)

    return log_probability


def on_clipped(log_density: LogProbability, low: float = -1.0, high: float = 1.0) -> LogProbability:
    """The log density of the picture clipped to [low, high], with its gradient as if it weren't.

    Clipping's own gradient is 0 on what is outside, so that what an estimate overshoots, such as a
    white ground, could never be guided back in.
    """

    def log_probability(pixels: Array, t: Time) -> Array:
        overshoot = jax.lax.stop_gradient(pixels - jnp.clip(pixels, low, high))
        return log_density(pixels - overshoot, t)

    return log_probability


def clip_guided(
    denoiser: Denoiser,
    encode_image: EncodeImage,
    text_embedding: Float[Array, "*b d"],
    process: GaussianProcess,
    scale: Scale,
) -> Denoiser:
    """Guidance to a text by any CLIP: it sees the clipped x0(x_t), through the denoiser.

    Args:
        denoiser: (x, t [b]) -> Prediction.
        encode_image: pixels [b h w c] in [-1, 1] -> unit embeddings [b d].
        text_embedding: unit, [d] or [b d].
        process: its coordinates and scales.
        scale: s; a number, [b], or a function of t. Traced.

    Raises:
        ValueError: embeddings that don't agree in d, or in b.

    Sources: Nichol et al. 2021 (GLIDE, arXiv:2112.10741), section 2.4, equation of CLIP guidance;
    through x0 as in Ho et al. 2022 (arXiv:2204.03458), section 3.1.
    """
    similarity = on_clipped(clip_similarity(encode_image, text_embedding))
    return guided_by(denoiser, similarity, process, scale)


def noised_clip_guided(
    denoiser: Denoiser,
    encode_noised: EncodeNoised,
    text_embedding: Float[Array, "*b d"],
    process: GaussianProcess,
    scale: Scale,
) -> Denoiser:
    """Guidance to a text by a CLIP that was trained on noised pictures: it sees x_t and t.

    Args:
        denoiser: (x, t [b]) -> Prediction.
        encode_noised: (pixels of x_t, t [b]) -> unit embeddings [b d].
        text_embedding: unit, [d] or [b d].
        process: its coordinates and scales.
        scale: s; a number, [b], or a function of t. Traced.

    Raises:
        ValueError: embeddings that don't agree in d, or in b.

    Source: Nichol et al. 2021 (GLIDE, arXiv:2112.10741), section 2.4.
    """
    similarity = noised_clip_similarity(encode_noised, text_embedding)
    return classifier_guided(denoiser, similarity, process, scale)
