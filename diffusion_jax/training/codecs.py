"""Codecs as tasks, the plain VAE among them (`picture_codecs.py` has the others), and what they
make of pictures. Parameters are {"codec"}, and "discriminator" where there is one.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float

from diffusion_jax.data import grid, to_uint8
from diffusion_jax.likelihood.pixels import discretised_gaussian
from diffusion_jax.losses import autoencoding
from diffusion_jax.models.autoencoder import Posterior
from diffusion_jax.models.cuts import gathered
from diffusion_jax.models.vae import VAE
from diffusion_jax.training.distributed import to_host
from diffusion_jax.training.runs import load_task
from diffusion_jax.training.sharding import (
    abstract_like,
    batch_parts,
    batched,
    shardings_of,
    spread,
    under,
)
from diffusion_jax.training.task import Task
from diffusion_jax.types import Key, Loss, Params

SHOWN = 32  # test pictures in a drawing


@dataclass(frozen=True, kw_only=True)
class CodecTask(Task):
    """A network that encodes pictures and decodes latents, and how it is trained."""

    @property
    @abc.abstractmethod
    def codec(self) -> nn.Module:
        """The network, with methods `encode` and `decode`."""

    @abc.abstractmethod
    def encode(self, params: Params, x: Float[Array, "b h w c"]) -> Array:
        """Latents of pictures, without noise: what `decode` reads."""

    @property
    @abc.abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Of one picture's latents, from numbers alone: a recipe asks before JAX may have begun."""

    def decode(self, params: Params, z: Array) -> Float[Array, "b h w c"]:
        """Pictures of latents, about in [-1, 1]."""
        return self.answer(params["codec"], z, "decode")

    def answer(self, params: Params, x: Array, method: str) -> Any:
        """What a method of the network says; `params` are the codec's own."""
        return self.codec.apply({"params": params}, x, method=method)

    def init_params(self, key: Key) -> Params:
        return {"codec": self.codec.init(key, self.blank(1)["image"])["params"]}

    def use(self, run_dir: Path) -> str:
        return f"benchmarks/codec_quality.py {run_dir}"

    def draw(self, params: Params, mesh: Mesh, data_dir: Path | None) -> np.ndarray:
        """Held-out pictures, and under each row of them what the codec makes of it."""
        source = self.source("test", data_dir)
        count = min(SHOWN, len(source))
        places = np.linspace(0, len(source) - 1, count).astype(int)  # alike ones lie together
        real = np.stack([source[int(i)]["image"] for i in places]) / np.float32(127.5) - 1
        again = np.concatenate([real, reconstruct(self, params, real, mesh)])
        columns = 8 if count % 8 == 0 else count
        order = np.arange(2 * count).reshape(2, -1, columns).swapaxes(0, 1).ravel()
        scale = max(1, 32 // self.image_shape[0])
        return grid(to_uint8(again[order]), columns=columns, scale=scale)


@dataclass(frozen=True, kw_only=True)
class VAETask(CodecTask):
    """A plain VAE, trained by its bound.

    Attributes:
        network: the codec.
        beta: what the KL weighs; 1 is the bound.
    """

    network: VAE
    beta: float = 1.0

    @property
    def codec(self) -> VAE:
        return self.network

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.network.latents,)

    def encode(self, params: Params, x: Float[Array, "b h w c"]) -> Array:
        return self.answer(params["codec"], x, "encode").mean

    def loss(self) -> Loss:
        def posterior(params: Params, x: Array) -> Posterior:
            return self.answer(params["codec"], x, "encode")

        return autoencoding.bound_loss(posterior, self.log_likelihood, self.beta)

    def log_likelihood(self, params: Params, z: Array, x: Array) -> Float[Array, " b"]:
        """log P(x | z) of 8-bit pictures, in nats."""
        mean, std = self.answer(params["codec"], z, "levels")
        return discretised_gaussian(x, mean, std)

    def check(self) -> None:
        super().check()
        if not self.beta >= 0:
            raise ValueError(f"beta is {self.beta}; it must be at least 0.")


def psnr(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """10 log10(2^2 / mean (x - y)^2) in dB of each picture in [-1, 1]; y is clipped.

    >>> x = jnp.zeros((1, 2, 2, 1))
    >>> round(float(psnr(x, x + 0.2)[0]), 4)
    20.0
    """
    error = autoencoding.squared_error(x, jnp.clip(y, -1.0, 1.0))
    return 10 * jnp.log10(4 / jnp.maximum(error, 1e-10))


def load_codec(run_dir: Path) -> CodecTask:
    """The codec that a run folder trained; its parameters are `runs.load_params`'s.

    Raises:
        ValueError: it trained something else.
        FileNotFoundError: there is no such run.
    """
    task = load_task(run_dir)
    if not isinstance(task, CodecTask):
        raise ValueError(f"{run_dir} holds no codec; name a run such as runs/kl_emoji64.")
    return task


def reconstruct(
    task: CodecTask, params: Params, pictures: np.ndarray, mesh: Mesh, batch_size: int = 32
) -> np.ndarray:
    """What the codec makes of pictures [n h w c] in [-1, 1], so many at a time, clipped."""
    parts = batch_parts(mesh)
    batch_size = -(-batch_size // parts) * parts

    def again(params: Params, x: Array) -> Array:
        params = gathered(params)
        return jnp.clip(task.decode(params, task.encode(params, x)), -1.0, 1.0)

    placed = shardings_of(abstract_like(task.init_params, jax.random.key(0), mesh))
    cut = batched(mesh)
    run = jax.jit(under(mesh, again), in_shardings=(placed, cut), out_shardings=cut)
    done = []
    for start in range(0, len(pictures), batch_size):
        places = np.arange(start, start + batch_size)
        full = np.take(pictures, places, axis=0, mode="clip")
        done.append(to_host(run(params, spread(full, mesh)))[: len(pictures) - start])
    return np.concatenate(done)
