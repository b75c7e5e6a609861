"""Layers that the networks share. Images are NHWC; what is float32 says `precision`.

Each computes in the dtype of its input, which the network sets once. Projections that end
a residual branch start at zero, so that a new network is the identity plus nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.precision import island
from diffusion_jax.random import bernoulli, example_keys
from diffusion_jax.types import Key

zeros = nn.initializers.zeros


def default_init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Uniform with variance 1/fan, fan the mean of inputs and outputs: DDPM's initialisation.

    Drawn flat, which XLA:CPU compiles five times sooner than a draw of rank 4.
    """
    taps = math.prod(shape[:-2])
    limit = math.sqrt(3 / (taps * (shape[-2] + shape[-1]) / 2))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit).reshape(shape)


def flat_dot(x: Array, kernel: Array, dimensions: Any, precision: Any = None, **how: Any) -> Array:
    """x [... c] times kernel [c features] as a product of two matrices, for `nn.Dense`.

    Left with several axes, x is transposed for the kernel's gradient, and XLA's CPU backend does so
    in one loop with the activation that made it, far slower than either.
    """
    flat = x.reshape(-1, x.shape[-1])
    y = jax.lax.dot_general(flat, kernel, (((1,), (0,)), ((), ())), precision, **how)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def dense(
    features: int, dtype, name: str, *, zero: bool = False, init: Any = None, bias: bool = True
) -> nn.Dense:
    """A linear layer of the last axis."""
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=dtype,
        kernel_init=zeros if zero else init or default_init,
        dot_general=flat_dot,
        name=name,
    )


def conv3x3(
    features: int,
    dtype,
    name: str,
    *,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
    zero: bool = False,
) -> nn.Conv:
    """A 3x3 convolution with one pixel of zeros around; a strided one pads below and right, unless
    `padding` says otherwise."""
    sides = padding or ((1, 1) if stride == 1 else (0, 1))
    init = zeros if zero else default_init
    return nn.Conv(
        features, (3, 3), (stride, stride), (sides, sides), dtype=dtype, kernel_init=init, name=name
    )


@dataclass(frozen=True)
class Sinusoidal:
    """[sin(w_i t), cos(w_i t)] with w_i = period^(-i / (features/2 - shift)); or cosines first.

    Source: Vaswani et al. 2017 (arXiv:1706.03762); shift is 1 in DDPM and 0 in ADM.
    """

    features: int
    period: float = 10_000.0
    shift: int = 1
    cosine_first: bool = False

    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b features"]:
        half = self.features // 2
        exponent = jnp.arange(half, dtype=jnp.float32) / (half - self.shift)
        angle = island(t)[:, None] * (self.period**-exponent)[None, :]
        halves = jnp.sin(angle), jnp.cos(angle)
        return jnp.concatenate(halves[::-1] if self.cosine_first else halves, axis=-1)


@dataclass(frozen=True)
class Fourier:
    """[sin(2 pi w_i t), cos(2 pi w_i t)] with fixed random w_i ~ N(0, scale^2).

    Source: Song et al. 2021 (arXiv:2011.13456), appendix C; Tancik et al. 2020.
    """

    features: int
    scale: float = 16.0
    seed: int = 0

    def __call__(self, t: Float[Array, " b"]) -> Float[Array, "b features"]:
        key = jax.random.key(self.seed)
        w = self.scale * jax.random.normal(key, (self.features // 2,), jnp.float32)
        angle = 2 * jnp.pi * island(t)[:, None] * w[None, :]
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class GroupNorm(nn.Module):
    """Group normalisation, optionally modulated: (1 + scale) norm(x) + shift.

    Statistics are two plain sums in float32, folded into one multiply-add per pixel.

    Source: Wu & He 2018 (arXiv:1803.08494).
    """

    groups: int = 32
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *hw c"],
        modulation: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None,
    ) -> Float[Array, "b *hw c"]:
        b, c = x.shape[0], x.shape[-1]
        groups = groups_for(c, self.groups)
        gain = self.param("scale", self.scale_init, (c,), jnp.float32)[None, :]
        bias = self.param("bias", zeros, (c,), jnp.float32)[None, :]
        if modulation is not None:
            scale, shift = (island(m) for m in modulation)
            gain, bias = gain * (1 + scale), bias * (1 + scale) + shift

        def mean(per_channel):
            """[b c], the mean over pixels and over each group's channels."""
            grouped = per_channel.reshape(b, groups, c // groups).mean(-1, keepdims=True)
            return jnp.broadcast_to(grouped, (b, groups, c // groups)).reshape(b, c)

        pixels = island(x.reshape(b, -1, c))
        count = pixels.shape[1]
        center = mean(pixels.sum(1) / count)
        variance = mean(jnp.square(pixels - center[:, None, :]).sum(1) / count)
        gain = gain * jax.lax.rsqrt(variance + self.epsilon)
        y = pixels * gain[:, None, :] + (bias - center * gain)[:, None, :]
        return y.astype(x.dtype).reshape(x.shape)


def groups_for(channels: int, groups: int) -> int:
    """The most groups, at most `groups`, that divide the channels."""
    return next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)


class Dropout(nn.Module):
    """Each example drops its own units, from its own key: independent of how they're sharded."""

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.rate == 0 or not self.has_rng("dropout"):
            return x
        key = self.make_rng("dropout")
        keep = bernoulli(example_keys(key, jnp.arange(x.shape[0])), 1 - self.rate, x.shape[1:])
        return jnp.where(keep, x / (1 - self.rate), 0.0).astype(x.dtype)


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """The mean of each 2x2 block."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Each pixel repeated in a 2x2 block."""
    b, h, w, c = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return wide.reshape(b, 2 * h, 2 * w, c)


def keep_size(x: Array) -> Array:
    return x


class StridedDown(nn.Module):
    """Half the size by a 3x3 convolution of stride 2 (DDPM)."""

    channels: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        return conv3x3(self.channels, x.dtype, "conv", stride=2)(x)


class PooledDown(nn.Module):
    """Half the size by averaging, then a 3x3 convolution."""

    channels: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        return conv3x3(self.channels, x.dtype, "conv")(average_pool(x))


class ResizeUp(nn.Module):
    """Twice the size by nearest neighbour, then a 3x3 convolution, never a transposed one.

    Computed as four 2x2 convolutions of the small picture, one for each corner of the 2x2
    blocks they make: taps that meet the same pixel are summed first. 16 instead of 36
    multiplications for each pixel and pair of channels; the parameters are the 3x3 ones.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        b, h, w, c = x.shape
        kernel = self.param("kernel", default_init, (3, 3, c, self.channels), jnp.float32)
        bias = self.param("bias", zeros, (self.channels,), jnp.float32)
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)

        def corner(row: int, column: int) -> Array:
            return jax.lax.conv_general_dilated(
                x,
                merge_taps(merge_taps(kernel, row, axis=0), column, axis=1),
                window_strides=(1, 1),
                padding=((1 - row, row), (1 - column, column)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        corners = jnp.stack(
            [jnp.stack([corner(row, column) for column in (0, 1)], axis=3) for row in (0, 1)],
            axis=2,
        )
        y = corners.reshape(b, 2 * h, 2 * w, self.channels)
        return y + bias[None, None, None, :]


def merge_taps(kernel: Array, side: int, axis: int) -> Array:
    """Three taps on doubled pixels as two on the small ones: (k0, k1 + k2) or (k0 + k1, k2)."""
    first, middle, last = jnp.split(kernel, 3, axis)
    pair = (first, middle + last) if side == 0 else (first + middle, last)
    return jnp.concatenate(pair, axis)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv; the embedding joins, if there is one; norm, SiLU, dropout, conv; plus the
    input.

    Attributes:
        channels: of the output.
        modulate: the embedding scales and shifts the second norm (adaptive group norm, ADM)
            instead of being added before it (DDPM).
        dropout: rate before the second convolution.
        resize: applied on both branches: `average_pool`, `nearest` or `keep_size`.
        groups: of the norms, at most. Where each channel is a group of its own, the second norm
            removes an added embedding: take fewer groups than channels, or `modulate`.
        epsilon: of the norms.

    Sources: Ho et al. 2020, appendix B; Dhariwal & Nichol 2021 (arXiv:2105.05233), section 3.
    """

    channels: int
    modulate: bool = False
    dropout: float = 0.0
    resize: Callable[[Array], Array] = keep_size
    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], embedding: Float[Array, "b e"] | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        dtype = x.dtype
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm1")(x))
        h = conv3x3(self.channels, dtype, "conv1")(self.resize(h))

        norm2 = GroupNorm(self.groups, self.epsilon, name="norm2")
        if embedding is None:
            h = norm2(h)
        else:
            features = self.channels * (2 if self.modulate else 1)
            e = dense(features, dtype, "embed")(nn.silu(embedding))
            if self.modulate:
                scale, shift = jnp.split(e, 2, axis=-1)
                h = norm2(h, (scale, shift))
            else:
                h = norm2(h + e[:, None, None, :])
        h = Dropout(self.dropout)(nn.silu(h))
        h = conv3x3(self.channels, dtype, "conv2", zero=True)(h)

        x = self.resize(x)
        if x.shape[-1] != self.channels:
            x = dense(self.channels, dtype, "skip")(x)
        return x + h
