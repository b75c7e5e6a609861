"""A U-Net's way down and its middle: what the denoiser and the classifier share.

At each level `blocks` residual blocks, attention where the picture's height is in `attention`,
then half the size. Middle: block, attention, block.

Sources: Ho et al. 2020 (arXiv:2006.11239), appendix B; Dhariwal & Nichol 2021
(arXiv:2105.05233), sections 3 and 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.attention import Attention
from diffusion_jax.models.layers import ResidualBlock, conv3x3, dense
from diffusion_jax.types import Condition


@runtime_checkable
class Architecture(Protocol):
    """A module with these attributes, which `UNet` describes, has a trunk."""

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    head_channels: int | None
    modulate: bool
    dropout: float
    groups: int
    epsilon: float
    dtype: Any

    @property
    def down(self) -> Callable[..., nn.Module]: ...
    @property
    def time_features(self) -> Callable[[Array], Array]: ...


@dataclass(frozen=True)
class Blocks:
    """Makes a module's blocks, all told the same time and condition.

    Attributes:
        module: whose attributes they follow; it must be in its compact method.
        embedding: [b e], of time and `condition.vector`.
        condition: its tokens are read by cross-attention.
    """

    module: Architecture
    embedding: Array
    condition: Condition

    def residual(self, h: Array, channels: int, name: str) -> Array:
        m = self.module
        return ResidualBlock(
            channels, m.modulate, m.dropout, groups=m.groups, epsilon=m.epsilon, name=name
        )(h, self.embedding)

    def attend(self, h: Array, name: str) -> Array:
        """Self-attention, then cross-attention where there are tokens."""
        m, condition = self.module, self.condition
        attention = partial(Attention, m.head_channels, m.groups, m.epsilon)
        h = attention(name=f"{name}_self")(h)
        if condition.tokens is None:
            return h
        return attention(name=f"{name}_cross")(h, condition.tokens, condition.mask)

    def layer(self, h: Array, channels: int, level: str, number: int) -> Array:
        """One of a level's blocks, with attention at the heights that have it."""
        h = self.residual(h, channels, f"{level}_block{number}")
        if h.shape[1] in self.module.attention:
            h = self.attend(h, f"{level}_attention{number}")
        return h


def level_channels(module: Architecture) -> list[int]:
    """The channels of each level."""
    return [m * module.channels for m in module.multipliers]


def descend(
    module: Architecture,
    x: Float[Array, "b h w c"],
    t: Float[Array, " b"],
    condition: Condition,
    *,
    middle_attention: bool = True,
) -> tuple[Blocks, Array, list[Array]]:
    """Down and through the middle, inside the compact method of `module`.

    Returns:
        The maker of further blocks; the middle's answer; and what the way down left behind,
        the smallest last.

    Raises:
        ValueError: height or width isn't divisible by 2^(levels - 1), `condition.image` has
            another size than x, or there are no channels.
    """
    _check(x, condition, module.channels, len(module.multipliers))
    blocks = Blocks(module, _embed(module, t, condition), condition)
    x = x.astype(module.dtype)
    if condition.image is not None:
        x = jnp.concatenate([x, condition.image.astype(module.dtype)], axis=-1)

    h = conv3x3(module.channels, module.dtype, "conv_in")(x)
    left = [h]
    levels = level_channels(module)
    for i, channels in enumerate(levels):
        for j in range(module.blocks):
            h = blocks.layer(h, channels, f"down{i}", j)
            left.append(h)
        if i + 1 < len(levels):
            h = module.down(channels, name=f"down{i}_resize")(h, blocks.embedding)
            left.append(h)

    h = blocks.residual(h, levels[-1], "middle_block0")
    if middle_attention:
        h = blocks.attend(h, "middle_attention")
    h = blocks.residual(h, levels[-1], "middle_block1")
    return blocks, h, left


def _embed(
    module: Architecture, t: Float[Array, " b"], condition: Condition
) -> Float[Array, "b e"]:
    """Time features through two dense layers, plus the condition's vector."""
    width = 4 * module.channels
    embedding = dense(width, module.dtype, "time1")(module.time_features(t))
    embedding = dense(width, module.dtype, "time2")(nn.silu(embedding))
    if condition.vector is None:
        return embedding
    return embedding + dense(width, module.dtype, "vector")(condition.vector)


def _check(x: Array, condition: Condition, channels: int, levels: int) -> None:
    divisor = 2 ** (levels - 1)
    if channels < 1:
        raise ValueError(f"channels is {channels}; a network has at least 1.")
    if x.shape[1] % divisor or x.shape[2] % divisor:
        raise ValueError(
            f"pictures of {x.shape[1]}x{x.shape[2]} can't be halved {levels - 1} times; "
            f"height and width must be multiples of {divisor}, or take fewer multipliers."
        )
    if condition.image is not None and condition.image.shape[:3] != x.shape[:3]:
        raise ValueError(
            f"condition.image has shape {condition.image.shape} and x {x.shape}; "
            "batch, height and width must be equal."
        )
