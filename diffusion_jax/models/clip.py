"""CLIP: pictures and texts as directions, alike where they belong together.

    logits_ij = exp(s) <image_i, text_j> + bias                                                 (1)

with unit vectors, and s learned. CLIP has no bias; the sigmoid loss needs one.

Sources: Radford et al. 2021, CLIP (arXiv:2103.00020), figure 3 and section 2.5; Zhai et al. 2023,
SigLIP (arXiv:2303.15343), section 3.2, for the bias.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.models.clip_blocks import Activation, Encoding, exact_gelu, quick_gelu
from diffusion_jax.models.clip_resnet import ModifiedResNet, Norm
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.clip_vision import VisionTransformer
from diffusion_jax.models.layers import GroupNorm
from diffusion_jax.models.stack import Remat

LARGEST_SCALE = 100.0


class CLIP(nn.Module):
    """(pixels, tokens) -> (Encoding of pixels, Encoding of tokens, exp(min(s, log 100))).

    Parameters: those of the towers under "image" and "text", s under "scale", and "bias".

    >>> clip = CLIP(
    ...     image=VisionTransformer(8, width=16, layers=1, heads=2, patch=4, image_size=8),
    ...     text=TextTransformer(8, 9, length=5, width=16, layers=1, heads=2, end=0),
    ... )
    >>> pixels, tokens = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 5), jnp.int32)
    >>> params = clip.init(jax.random.key(0), pixels, tokens)
    >>> image = clip.apply(params, pixels, method="encode_image")
    >>> text = clip.apply(params, tokens, method="encode_text")
    >>> clip.apply(params, image.embedding, text.embedding, method="similarity").shape
    (2, 3)

    Attributes:
        image: pixels [b h w c] in [-1, 1] -> Encoding; None where there is but a text encoder.
        text: ids [b n] -> Encoding; None where there is but an image encoder.
        bias: whether the logits have one, as the sigmoid loss needs. It starts at -10 with
            s = log 10, instead of s = log(1 / 0.07).

    Raises:
        ValueError: the tower that is asked isn't there.
    """

    image: nn.Module | None
    text: nn.Module | None
    bias: bool = False

    def setup(self) -> None:
        if self.image is None or self.text is None:
            return
        start = math.log(10.0) if self.bias else math.log(1 / 0.07)
        constant = nn.initializers.constant
        self.log_scale = self.param("scale", constant(start), (), jnp.float32)
        if self.bias:
            self.offset = self.param("bias", constant(-10.0), (), jnp.float32)

    def __call__(
        self, pixels: Float[Array, "b h w c"], tokens: Int[Array, "b2 n"]
    ) -> tuple[Encoding, Encoding, Float[Array, ""]]:
        return self.encode_image(pixels), self.encode_text(tokens), self.temperature()

    def encode_image(self, pixels: Float[Array, "b h w c"]) -> Encoding:
        """What the pictures' tower says."""
        return _there(self.image, "image")(pixels)

    def encode_text(self, tokens: Int[Array, "b n"]) -> Encoding:
        """What the texts' tower says."""
        return _there(self.text, "text")(tokens)

    def temperature(self) -> Float[Array, ""]:
        """exp(min(s, log 100)): beyond 100 training isn't stable (CLIP, section 2.5)."""
        _there(self.image, "image"), _there(self.text, "text")
        return jnp.exp(_at_most(self.log_scale, math.log(LARGEST_SCALE)))

    def similarity(
        self, image: Float[Array, "b features"], text: Float[Array, "n features"]
    ) -> Float[Array, "b n"]:
        """Equation (1) of all pairs of embeddings, exact in float32: exp(s) enlarges rounding."""
        alike = jnp.einsum("bf,nf->bn", image, text, precision=jax.lax.Precision.HIGHEST)
        logits = self.temperature() * alike
        return logits + self.offset if self.bias else logits


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_most(s: Array, limit: float) -> Array:
    """min(s, limit), whose gradient beyond the limit leads back alone: else s would stay there."""
    return jnp.minimum(s, limit)


def _at_most_forward(s: Array, limit: float) -> tuple[Array, Array]:
    return _at_most(s, limit), s > limit


def _at_most_backward(limit: float, beyond: Array, cotangent: Array) -> tuple[Array]:
    return (jnp.where(beyond, jnp.maximum(cotangent, 0.0), cotangent),)


_at_most.defvjp(_at_most_forward, _at_most_backward)


def _there(tower: nn.Module | None, name: str) -> Any:
    if tower is None:
        raise ValueError(f"this CLIP has no {name} tower.")
    return tower


class Sizes(NamedTuple):
    """Of a published CLIP.

    Attributes:
        features: of the embedding.
        image: width, layers and heads of the pictures' tower; heads are 0 for a ResNet.
        patch: of a vision transformer; 0 for a ResNet.
        image_size: height and width of its pictures.
        text: width, layers and heads of the texts' tower.
        activation: of the transformers.
        hidden: of the vision transformer's MLPs; None is four times its width.
    """

    features: int
    image: tuple[int, int | tuple[int, ...], int]
    patch: int
    image_size: int
    text: tuple[int, int, int]
    activation: Activation = quick_gelu
    hidden: int | None = None


# Radford et al. 2021, tables 19 and 20; the last two are OpenCLIP's (arXiv:2212.07143).
CLIP_SIZES: Mapping[str, Sizes] = {
    "RN50": Sizes(1024, (64, (3, 4, 6, 3), 0), 0, 224, (512, 12, 8)),
    "RN101": Sizes(512, (64, (3, 4, 23, 3), 0), 0, 224, (512, 12, 8)),
    "RN50x4": Sizes(640, (80, (4, 6, 10, 6), 0), 0, 288, (640, 12, 10)),
    "RN50x16": Sizes(768, (96, (6, 8, 18, 8), 0), 0, 384, (768, 12, 12)),
    "RN50x64": Sizes(1024, (128, (3, 15, 36, 10), 0), 0, 448, (1024, 12, 16)),
    "ViT-B/32": Sizes(512, (768, 12, 12), 32, 224, (512, 12, 8)),
    "ViT-B/16": Sizes(512, (768, 12, 12), 16, 224, (512, 12, 8)),
    "ViT-L/14": Sizes(768, (1024, 24, 16), 14, 224, (768, 12, 12)),
    "ViT-L/14@336": Sizes(768, (1024, 24, 16), 14, 336, (768, 12, 12)),
    "ViT-H/14": Sizes(1024, (1280, 32, 16), 14, 224, (1024, 24, 16), exact_gelu),
    "ViT-bigG/14": Sizes(1280, (1664, 48, 16), 14, 224, (1280, 32, 20), exact_gelu, 8192),
}


def published_clip(
    name: str, *, norm: Norm = GroupNorm, remat: Remat = "none", dtype: Any = jnp.float32
) -> CLIP:
    """A CLIP of a published size, `CLIP_SIZES`, such as "ViT-B/32", 151.3 M parameters.

    Its texts have up to 77 of 49,408 ids and end with 49,407.

    Args:
        name: a key of `CLIP_SIZES`.
        norm: of a ResNet; `FrozenBatchNorm` reads published weights.
        remat: of the transformers.
        dtype: of the computation.

    Raises:
        ValueError: no such name.
    """
    if name not in CLIP_SIZES:
        raise ValueError(f"there is no CLIP {name!r}; there are {', '.join(CLIP_SIZES)}.")
    features, (width, layers, heads), patch, size, text, activation, hidden = CLIP_SIZES[name]
    image: nn.Module
    if isinstance(layers, tuple):
        image = ModifiedResNet(features, layers, width, image_size=size, norm=norm, dtype=dtype)
    else:
        image = VisionTransformer(
            features,
            width,
            layers,
            heads,
            patch,
            size,
            activation=activation,
            hidden=hidden,
            remat=remat,
            dtype=dtype,
        )
    tower = TextTransformer(
        features, 49408, 77, *text, end=49407, activation=activation, remat=remat, dtype=dtype
    )
    return CLIP(image, tower)


def emoji_tower(kind: Literal["resnet", "vit"], width: int = 128, layers: int = 4) -> nn.Module:
    """A tower of 64x64 pictures small enough for two cores, 128 features.

    Args:
        kind: a `VisionTransformer` on patches of 8, or a `ModifiedResNet` of three stages.
        width: of the transformer, a multiple of 32, which are a head.
        layers: of the transformer.
    """
    if kind == "resnet":
        return ModifiedResNet(128, (1, 1, 1), 32, image_size=64)
    return VisionTransformer(128, width, layers, width // 32, patch=8, image_size=64)
