"""The U-Net of DDPM and ADM, conditioned every way that `Condition` names.

Down and middle: `trunk.descend`. Up: one block more a level than down, each fed with what the
way down left at its height, then twice the size.

Sources: Ho et al. 2020 (arXiv:2006.11239), appendix B; Dhariwal & Nichol 2021
(arXiv:2105.05233), section 3 and table 11.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.layers import (
    GroupNorm,
    ResidualBlock,
    ResizeUp,
    Sinusoidal,
    StridedDown,
    average_pool,
    conv3x3,
    nearest,
)
from diffusion_jax.models.precision import island
from diffusion_jax.models.trunk import descend, level_channels
from diffusion_jax.types import Condition


class UNet(nn.Module):
    """(x [b h w c], t [b], condition) -> y [b h w out_channels], float32.

    Attributes:
        out_channels: of the answer: the picture's, twice that with learned variance.
        channels: of the first level.
        multipliers: the channels of each level, in units of `channels`.
        blocks: residual blocks a level.
        attention: heights of the picture at which pixels attend to each other and to tokens.
        middle_attention: whether pixels attend at the lowest level too. Without it and without
            `attention`, a network that was trained on parts of pictures draws whole ones.
        head_channels: channels of an attention head; None is one head.
        modulate: adaptive group norm instead of adding the embedding.
        dropout: rate in the residual blocks.
        down, up: make the layers between levels: (channels, name=...) -> module(x, embedding).
        time_features: t [b] -> features [b f], `Sinusoidal` or `Fourier`.
        groups: of the norms, at most; see `ResidualBlock` on networks of few channels.
        epsilon: of the norms.
        dtype: of the computation; parameters, norms' statistics and y are float32.

    `condition.vector` is projected and added to the time embedding, `condition.image` is
    concatenated to x's channels, `condition.tokens` (with `mask`) are read by cross-attention
    after each self-attention.

    Raises:
        ValueError: height or width isn't divisible by 2^(levels - 1), or `condition.image`
            has another size than x.
    """

    out_channels: int
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    middle_attention: bool = True
    head_channels: int | None = None
    modulate: bool = False
    dropout: float = 0.0
    down: Callable[..., nn.Module] = StridedDown
    up: Callable[..., nn.Module] = ResizeUp
    time_features: Callable[[Array], Array] = Sinusoidal(128)
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        condition: Condition = Condition(),
    ) -> Float[Array, "b h w out"]:
        blocks, h, skips = descend(self, x, t, condition, middle_attention=self.middle_attention)
        for i, channels in reversed(list(enumerate(level_channels(self)))):
            for j in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = blocks.layer(h, channels, f"up{i}", j)
            if i > 0:
                h = self.up(channels, name=f"up{i}_resize")(h, blocks.embedding)

        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm_out")(h))
        h = conv3x3(self.out_channels, self.dtype, "conv_out", zero=True)(h)
        return island(h)


def digits_unet(channels: int = 16, dtype: Any = jnp.float32) -> UNet:
    """A network for 8x8 digits, 0.19 M parameters with 10 classes; t from 0 to about 1,000."""
    return UNet(
        out_channels=1,
        channels=channels,
        multipliers=(1, 2),
        blocks=1,
        attention=(4,),
        head_channels=16,
        modulate=True,
        time_features=Sinusoidal(32),
        dtype=dtype,
    )


def shapes_unet(size: int = 16, channels: int = 32, dtype: Any = jnp.float32) -> UNet:
    """A network for the world of shapes, t from 0 to about 1,000; 2.9 M parameters at 32 channels,
    without what reads tokens.

    It attends, to pixels and to tokens, at a half and a quarter of the pictures' size.
    """
    return UNet(
        out_channels=3,
        channels=channels,
        multipliers=(1, 2, 4),
        blocks=1,
        attention=(size // 2, size // 4),
        head_channels=min(32, channels),
        modulate=True,
        time_features=Sinusoidal(64),
        dtype=dtype,
    )


def patches_unet(
    attention: tuple[int, ...] = (), channels: int = 48, dtype: Any = jnp.float32
) -> UNet:
    """A network for `Patched` pictures of three channels, in patches of 2x2, t from 0 to about
    1,000; without attention it is convolutional, and runs at any size.

    Args:
        attention: heights, in patches, at which it attends to pixels and to tokens.
        channels: of the first level.
        dtype: of the computation.
    """
    return UNet(
        out_channels=12,
        channels=channels,
        multipliers=(1, 2, 4),
        blocks=1,
        attention=attention,
        middle_attention=bool(attention),
        head_channels=min(48, channels),
        modulate=True,
        time_features=Sinusoidal(64),
        dtype=dtype,
    )


def ddpm_cifar10(dtype: Any = jnp.float32) -> UNet:
    """DDPM's network for 32x32 pictures, 35.7 M parameters; t in table steps 0..999.

    Source: Ho et al. 2020, appendix B.
    """
    return UNet(3, 128, (1, 2, 2, 2), 2, (16,), dropout=0.1, epsilon=1e-6, dtype=dtype)


def _adm(channels: int, multipliers: tuple[int, ...], blocks: int, **more: Any) -> UNet:
    """ADM's family: adaptive norms, levels joined by residual blocks that resize, heads of 64
    channels, and learned variance, which doubles the answer's channels; t in table steps."""
    block = partial(ResidualBlock, modulate=True, dropout=more.get("dropout", 0.0))
    return UNet(
        out_channels=6,
        channels=channels,
        multipliers=multipliers,
        blocks=blocks,
        head_channels=64,
        modulate=True,
        down=partial(block, resize=average_pool),
        up=partial(block, resize=nearest),
        time_features=Sinusoidal(channels, shift=0),
        **more,
    )


def adm_64(dtype: Any = jnp.float32) -> UNet:
    """ADM's network for 64x64 pictures, 296 M parameters with 1,000 classes as one-hot
    `condition.vector`; learned variance doubles the answer's channels; t in table steps.

    Source: Dhariwal & Nichol 2021, table 11 (ImageNet 64) and section 3.
    """
    return _adm(192, (1, 2, 3, 4), 3, attention=(32, 16, 8), dropout=0.1, dtype=dtype)


def adm_256(dtype: Any = jnp.float32) -> UNet:
    """ADM's network for 256x256 pictures, 554 M parameters with 1,000 classes as one-hot
    `condition.vector`; learned variance doubles the answer's channels; t in table steps.

    Source: Dhariwal & Nichol 2021, table 11 (ImageNet 256) and section 3.
    """
    return _adm(256, (1, 1, 2, 2, 4, 4), 2, attention=(32, 16, 8), dtype=dtype)


def unclip_64(dtype: Any = jnp.float32) -> UNet:
    """The decoder's network of unCLIP for 64x64 pictures, beside its encoder of texts; as ADM's.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), table 3.
    """
    return _adm(512, (1, 2, 3, 4), 3, attention=(32, 16, 8), dropout=0.1, dtype=dtype)


def unclip_256(dtype: Any = jnp.float32) -> UNet:
    """The network of unCLIP's upsampler to 256x256 pictures, without attention; as ADM's.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), table 3.
    """
    plain = {"attention": (), "middle_attention": False}
    return _adm(320, (1, 2, 3, 4), 3, dropout=0.1, dtype=dtype, **plain)


def unclip_1024(dtype: Any = jnp.float32) -> UNet:
    """The network of unCLIP's upsampler to 1,024x1,024 pictures, without attention; as ADM's.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), table 3.
    """
    plain = {"attention": (), "middle_attention": False}
    return _adm(192, (1, 1, 2, 2, 4, 4), 2, dtype=dtype, **plain)
