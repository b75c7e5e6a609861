"""The convolutions of VGG-16, whose features perceptual distances compare.

Source: Simonyan & Zisserman 2015 (arXiv:1409.1556), configuration D.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.precision import island

WIDTHS, DEPTHS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
# Mean and spread of ImageNet's pictures in [-1, 1], by which those that it reads are normalised.
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class VGG16(nn.Module):
    """x [b h w 3] in [-1, 1] -> the features after the last convolution of each of five stages.

    Stage i's are 2^i times smaller than the picture, which has 16 pixels a side at least.

    Attributes:
        widths: channels of a stage.
        depths: convolutions of a stage, 3x3 with ReLU; between stages the maximum of 2x2 is taken.
        dtype: of the computation; parameters and features are float32.
    """

    widths: tuple[int, ...] = WIDTHS
    depths: tuple[int, ...] = DEPTHS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b h2 w2 c"], ...]:
        mean, std = (jnp.array(v).reshape(1, 1, 1, 3) for v in (MEAN, STD))
        h = ((x - mean) / std).astype(self.dtype)
        found = []
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if i:
                h = nn.max_pool(h, (2, 2), strides=(2, 2))
            for j in range(depth):
                name = f"stage{i}_conv{j}"
                h = nn.relu(nn.Conv(width, (3, 3), dtype=self.dtype, name=name)(h))
            found.append(island(h))
        return tuple(found)
