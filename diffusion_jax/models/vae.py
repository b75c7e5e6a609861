"""A plain variational autoencoder: one vector of latents a picture, and a distribution of levels.

Source: Kingma & Welling 2014 (arXiv:1312.6114); with convolutions, as in Higgins et al. 2017.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.autoencoder import Posterior
from diffusion_jax.models.layers import ResizeUp, StridedDown, conv3x3, dense
from diffusion_jax.models.precision import island

LEAST_LOG_STD = -4.0  # about two of 256 levels: narrower ones make gradients of thousands


class VAE(nn.Module):
    """q(z | x) = N(mean(x), diag s(x)^2), p(x | z) a Gaussian of levels for each pixel.

    Attributes:
        image_shape: (h, w, c) of the pictures; h and w are multiples of 2^levels.
        latents: entries of z.
        channels: of each halving of the picture, the largest picture first.
        width: of the layer between the last of them and z.
        dtype: of the computation; parameters and answers are float32.
    """

    image_shape: tuple[int, int, int]
    latents: int = 10
    channels: tuple[int, ...] = (32, 64)
    width: int = 256
    dtype: Any = jnp.float32

    def setup(self) -> None:
        h, w, c = self.image_shape
        factor = 2 ** len(self.channels)
        if h % factor or w % factor:
            raise ValueError(f"pictures of {h}x{w} can't be halved {len(self.channels)} times.")
        grid = (h // factor, w // factor, self.channels[-1])
        self.encoder = _Encoder(2 * self.latents, self.channels, self.width, self.dtype)
        self.decoder = _Decoder(2 * c, grid, self.channels, self.width, self.dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The picture of the posterior's mean."""
        return self.decode(self.encode(x).mean)

    def encode(self, x: Float[Array, "b h w c"]) -> Posterior:
        """q(z | x) of pictures in [-1, 1]; both parts are [b latents]."""
        mean, log_variance = jnp.split(self.encoder(x), 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def levels(
        self, z: Float[Array, "b latents"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """Mean and deviation of each pixel, the latter from e^-4 to 1."""
        mean, raw = jnp.split(self.decoder(z), 2, axis=-1)
        return mean, jnp.exp(LEAST_LOG_STD * nn.sigmoid(-raw))

    def decode(self, z: Float[Array, "b latents"]) -> Float[Array, "b h w c"]:
        """The pixels' means."""
        return self.levels(z)[0]


class _Encoder(nn.Module):
    features: int
    channels: tuple[int, ...]
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x.astype(self.dtype)
        for i, c in enumerate(self.channels):
            h = nn.silu(StridedDown(c, name=f"down{i}")(h))
        h = nn.silu(dense(self.width, self.dtype, "hidden")(h.reshape(len(h), -1)))
        return island(dense(self.features, self.dtype, "out")(h))


class _Decoder(nn.Module):
    features: int
    grid: tuple[int, int, int]
    channels: tuple[int, ...]
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, z: Array) -> Array:
        height, width, c = self.grid
        h = nn.silu(dense(self.width, self.dtype, "hidden")(z.astype(self.dtype)))
        h = nn.silu(dense(height * width * c, self.dtype, "grid")(h))
        h = h.reshape(len(h), height, width, c)
        for i in reversed(range(len(self.channels))):
            h = nn.silu(ResizeUp(self.channels[max(i - 1, 0)], name=f"up{i}")(h))
        return island(conv3x3(self.features, self.dtype, "conv_out")(h))
