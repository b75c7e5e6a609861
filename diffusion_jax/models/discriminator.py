"""A discriminator of patches: each logit judges the part of a picture that it sees.

Source: Isola et al. 2017 (arXiv:1611.07004), appendix 6.1.2, with group norms in place of batch
norms: a picture's logits don't depend on the pictures beside it, and there is no running state.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.layers import GroupNorm
from diffusion_jax.models.precision import island

init = nn.initializers.normal(0.02)


class PatchDiscriminator(nn.Module):
    """pictures [b h w c] -> logits [b h' w'], float32; h' is h / 2^layers - 2.

    With 3 layers a logit sees 70x70 pixels, with 2 34x34, with 1 16x16; of the others it knows
    what the norms' statistics say.

    Attributes:
        channels: of the first layer; they double up to eightfold.
        layers: convolutions of stride 2.
        groups: of the norms, which all layers have but the first and the last.
        dtype: of the computation.

    Raises:
        ValueError: the pictures are too small for a logit.
    """

    channels: int = 64
    layers: int = 3
    groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2"]:
        least = 3 * 2**self.layers
        if min(x.shape[1:3]) < least:
            raise ValueError(
                f"pictures of {x.shape[1]}x{x.shape[2]} are too small for a discriminator of "
                f"{self.layers} layers, which needs {least}x{least}."
            )
        h = x.astype(self.dtype)
        for i in range(self.layers + 1):
            stride = 2 if i < self.layers else 1
            h = self._conv(self.channels * min(2**i, 8), stride, f"conv{i}", bias=i == 0)(h)
            if i > 0:
                h = GroupNorm(self.groups, name=f"norm{i}")(h)
            h = nn.leaky_relu(h, 0.2)
        return island(self._conv(1, 1, "out")(h)[..., 0])

    def _conv(self, features: int, stride: int, name: str, bias: bool = True) -> nn.Conv:
        padding = ((1, 1), (1, 1))
        return nn.Conv(
            features, (4, 4), (stride, stride), padding, use_bias=bias, dtype=self.dtype,
            kernel_init=init, name=name,
        )  # fmt: skip
