"""CLIP's pictures by a residual network whose answer is attended to instead of averaged.

Three differences from ResNet-50: a stem of three convolutions, an average over 2x2 pixels where
the original strides (which aliases), and attention of the mean to the last grid at the end.

Sources: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.4; He et al. 2018, ResNet-D
(arXiv:1812.01187); Zhang 2019 (arXiv:1904.11486).
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.attention import AttentionPool
from diffusion_jax.models.clip_blocks import Encoding, encoding
from diffusion_jax.models.clip_vision import MEAN, STD, check_pictures, normalised
from diffusion_jax.models.layers import GroupNorm, average_pool, default_init
from diffusion_jax.models.precision import island

Norm = Callable[..., nn.Module]  # (scale_init=, name=) -> module [b h w c] -> [b h w c]
ones, zeros = nn.initializers.ones, nn.initializers.zeros


class FrozenBatchNorm(nn.Module):
    """scale (x - mean) / sqrt(var + epsilon) + bias, of stored statistics.

    All four are parameters, [c] each; mean and var have no gradient. It is what a published
    network's batch norm does outside of training.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2.
    """

    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = ones

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        scale, bias, mean, var = (
            self.param(name, init, (x.shape[-1],), jnp.float32)
            for name, init in (
                ("scale", self.scale_init),
                ("bias", zeros),
                ("mean", zeros),
                ("var", ones),
            )
        )
        mean, var = jax.lax.stop_gradient((mean, var))
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * gain
        return (island(x) * gain[None, None, None] + offset[None, None, None]).astype(x.dtype)


class ModifiedResNet(nn.Module):
    """pixels [b h w c] in [-1, 1] -> Encoding, whose tokens are the last grid, (h / 32)^2.

    Attributes:
        features: of the embedding.
        layers: blocks of each of the stages, of which all but the first halve the picture.
        width: channels of the first stage are 4 width, and double in each stage.
        heads: of the attention at the end; by default heads of 64 channels.
        image_size: height and width of the pictures; the last grid has learned positions.
        norm: `GroupNorm`, to train: examples don't depend on each other, so there are no running
            statistics, and batches may be cut among devices in any way. `FrozenBatchNorm`, for
            published weights, which were trained with batch norm.
        mean, std: of each channel in [0, 1], by which pictures are normalised here.
        dtype: of the computation; parameters and what comes out are float32.

    Raises:
        ValueError: pictures of another size or other channels, a size that the stages can't
            halve, or heads that don't divide the channels.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 2.4.
    """

    features: int
    layers: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    heads: int | None = None
    image_size: int = 224
    norm: Norm = GroupNorm
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> Encoding:
        check_pictures(pixels, self.image_size, self.mean, self.std)
        channels = self.width * 2 ** (len(self.layers) + 1)
        heads = self.heads or max(channels // 64, 1)
        shrinks = 2 ** (len(self.layers) + 1)
        if self.image_size % shrinks:
            raise ValueError(
                f"an image_size of {self.image_size} isn't a multiple of {shrinks}, by which "
                f"{len(self.layers)} stages and their stem divide it."
            )
        if channels % heads:
            raise ValueError(f"{channels} channels can't be cut into {heads} heads.")
        h = normalised(pixels, self.mean, self.std).astype(self.dtype)
        for i, c in enumerate((self.width // 2, self.width // 2, self.width), start=1):
            h = conv(c, 3, self.dtype, f"stem{i}", stride=2 if i == 1 else 1)(h)
            h = nn.relu(self.norm(name=f"stem_norm{i}")(h))
        h = before = average_pool(h)
        for stage, depth in enumerate(self.layers):
            before = h
            for i in range(depth):
                h = Bottleneck(
                    self.width * 2**stage,
                    halve=stage > 0 and i == 0,
                    norm=self.norm,
                    name=f"stage{stage}_block{i}",
                )(h)
        pooled = AttentionPool(self.features, channels // heads, name="pool")(h)
        return encoding(pooled, *(x.reshape(len(x), -1, x.shape[-1]) for x in (h, before)))


class Bottleneck(nn.Module):
    """relu(skip(x) + conv1x1(conv3x3(conv1x1(x)))), each convolution with its norm.

    Attributes:
        channels: of the 3x3 convolution; four times as many come out.
        halve: averages over 2x2 pixels before the last convolution, and on the skip.
        norm: of each convolution; the last one of the branch starts at zero.

    Source: He et al. 2015 (arXiv:1512.03385), section 4.1; Goyal et al. 2017 (arXiv:1706.02677),
    section 5.1, for the zero.
    """

    channels: int
    halve: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        c, dtype = self.channels, x.dtype
        resize = average_pool if self.halve else _keep
        h = nn.relu(self.norm(name="norm1")(conv(c, 1, dtype, "conv1")(x)))
        h = nn.relu(self.norm(name="norm2")(conv(c, 3, dtype, "conv2")(h)))
        h = conv(4 * c, 1, dtype, "conv3")(resize(h))
        h = self.norm(scale_init=zeros, name="norm3")(h)
        if self.halve or x.shape[-1] != 4 * c:
            x = conv(4 * c, 1, dtype, "skip")(resize(x))
            x = self.norm(name="skip_norm")(x)
        return nn.relu(x + h)


def _keep(x: Array) -> Array:
    return x


def conv(features: int, side: int, dtype: Any, name: str, *, stride: int = 1) -> nn.Conv:
    """Without a bias, which the norm has, and with as much padding on every side."""
    padding = ((side // 2,) * 2,) * 2
    return nn.Conv(
        features,
        (side, side),
        (stride, stride),
        padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=default_init,
        name=name,
    )
