"""CLIP's pictures by a vision transformer: patches as tokens, and one more that answers.

    h_0 = norm([class, W x_1, ..., W x_n] + positions)                                          (1)
    e   = P norm(h_L)_0                                                                         (2)

Sources: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.4; Dosovitskiy et al. 2020, ViT
(arXiv:2010.11929), equations (1) to (4).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.clip_blocks import (
    Activation,
    Encoding,
    check_tower,
    encoding,
    layer_norm,
    quick_gelu,
    run_blocks,
)
from diffusion_jax.models.layers import dense
from diffusion_jax.models.patches import cut_patches
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import Remat

# Of the pictures OpenAI trained on, in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class VisionTransformer(nn.Module):
    """pixels [b h w c] in [-1, 1] -> Encoding, n = 1 + (h / patch)^2 tokens.

    Attributes:
        features: of the embedding; None leaves the class token's `width` unprojected.
        width: of the tokens.
        layers: blocks.
        heads: of each attention; they divide the width.
        patch: height and width of a patch.
        image_size: height and width of the pictures; each patch has a learned position.
        activation: of the MLPs.
        epsilon: of the norms.
        mean, std: of each channel in [0, 1], by which pictures are normalised here.
        hidden: width of the MLPs' hidden layers; by default 4 width.
        remat: "none", "dots" or "full", as `DiT`'s.
        dtype: of the computation; parameters and what comes out are float32.

    Raises:
        ValueError: pictures of another size or other channels, a patch that doesn't divide them,
            or heads that don't divide the width.

    Source: equations (1) and (2) above.
    """

    features: int | None
    width: int
    layers: int
    heads: int
    patch: int
    image_size: int
    activation: Activation = quick_gelu
    epsilon: float = 1e-5
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    hidden: int | None = None
    remat: Remat = "none"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> Encoding:
        check_tower("VisionTransformer", self.width, self.layers, self.heads)
        check_pictures(pixels, self.image_size, self.mean, self.std)
        if self.image_size % self.patch:
            raise ValueError(f"patches of {self.patch} don't divide a size of {self.image_size}.")
        b = len(pixels)
        x = normalised(pixels, self.mean, self.std).astype(self.dtype)
        h = dense(self.width, self.dtype, "patches", bias=False)(cut_patches(x, self.patch))
        small = nn.initializers.normal(self.width**-0.5)
        first = self.param("class", small, (self.width,), jnp.float32).astype(self.dtype)
        first = jnp.broadcast_to(first[None, None], (b, 1, self.width))
        n = 1 + h.shape[1]
        places = self.param("places", small, (n, self.width), jnp.float32)
        h = jnp.concatenate([first, h], axis=1) + places[None].astype(self.dtype)

        h = layer_norm(h, self.epsilon, "norm_in")
        h, before = run_blocks(self, h, causal=False)
        tokens = layer_norm(island(h), self.epsilon, "norm_out")
        return encoding(projected(tokens[:, 0], self.features, self.dtype), tokens, before)


def projected(pooled: Array, features: int | None, dtype: Any) -> Array:
    """P e without a bias; with None features, e."""
    if features is None:
        return pooled
    init = nn.initializers.normal(pooled.shape[-1] ** -0.5)
    return nn.Dense(features, use_bias=False, dtype=dtype, kernel_init=init, name="project")(pooled)


def normalised(
    pixels: Float[Array, "b h w c"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "b h w c"]:
    """((x + 1) / 2 - mean) / std of each channel, in float32."""
    center, scale = (jnp.asarray(v, jnp.float32)[None, None, None, :] for v in (mean, std))
    return ((island(pixels) + 1) / 2 - center) / scale


def check_pictures(
    pixels: Array, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Refuses pictures that a tower wasn't made for."""
    if pixels.ndim != 4 or pixels.shape[1:3] != (image_size, image_size):
        raise ValueError(
            f"pixels of shape {pixels.shape} for a tower that reads [b, {image_size}, "
            f"{image_size}, c]; resize them, or make it with image_size of that size."
        )
    if not pixels.shape[3] == len(mean) == len(std):
        raise ValueError(
            f"pictures of {pixels.shape[3]} channels, and the mean and std of {len(mean)} and "
            f"{len(std)} to normalise them by."
        )
