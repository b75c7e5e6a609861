"""A diffusion model of a codec's latents as a task: `Experiment`, whose pictures are decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.models.conditioning import Conditioning, Joined, Known
from diffusion_jax.models.cuts import gathered
from diffusion_jax.models.image_conditioning import Edges, Grey, Inpainting, LowResolution
from diffusion_jax.systems.latent import in_latents
from diffusion_jax.training.experiment import Experiment, unfinished
from diffusion_jax.training.latents import LatentCodec, codec_with
from diffusion_jax.types import (
    Batch,
    Condition,
    Denoiser,
    Extra,
    GaussianProcess,
    Index,
    Key,
    Loss,
    Params,
    Process,
)


@dataclass(frozen=True, kw_only=True)
class LatentExperiment(Experiment):
    """A diffusion model of latents: z_0 is corrupted and drawn, pictures are what it decodes to.

    `image_shape` is the pictures', and what the model is told is told of pictures. Latents are
    those without noise: of a Gaussian posterior, its mean.

    Attributes:
        codec: such as a `CodecRun`, whose folder is among `needs` too.
        latent_shape: (h, w, z).
        on_the_fly: the source has pictures, which each step encodes anew, so that they may be
            augmented and conditions made of them; else it's `latents.latents`.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.2.
    """

    codec: LatentCodec
    latent_shape: tuple[int, ...]
    on_the_fly: bool = False
    finish: Callable[[Denoiser, Process], Denoiser] = unfinished

    @property
    def shape(self) -> tuple[int, ...]:
        return self.latent_shape

    @property
    def data_shape(self) -> tuple[int, ...]:
        return self.image_shape if self.on_the_fly else self.latent_shape

    @property
    def reads_frozen(self) -> bool:
        """Whether a training step calls networks that aren't trained."""
        return self.on_the_fly

    def frozen(self, data_dir: Path | None) -> Any:
        """The arrays of the networks that aren't trained."""
        return {"codec": self.codec.arrays(data_dir)}

    def blank_condition(self) -> Condition:
        def encode(x: Array) -> Array:
            return jnp.zeros((len(x), *self.latent_shape))

        known = self.conditioning.blank((1, *self.image_shape))
        return self.conditioning.condition(in_latents(known, encode))

    def first_extra(self, data_dir: Path | None = None) -> Extra:
        """What isn't trained, and that a step calls, beside the loss's own."""
        own = super().first_extra(data_dir)
        if not self.reads_frozen:
            return own
        with jax.ensure_compile_time_eval():  # its shapes are asked for by tracing
            return {"frozen": self.frozen(data_dir), "own": own}

    def loss(self) -> Loss:
        if not self.reads_frozen:
            return super().loss()

        def loss(params: Params, extra: Extra, key: Key, batch: Batch):
            frozen = gathered(extra["frozen"])

            def tell(known: Known) -> Known:
                return self.told(frozen, known)

            of = dataclasses.replace(self, conditioning=retold(self.conditioning, tell))
            if self.on_the_fly:
                z = codec_with(self.codec, frozen["codec"]).encode(batch["image"])
                batch = {**batch, "image": z, "picture": batch["image"]}
            value, (metrics, own) = self.make_loss(of)(params, extra["own"], key, batch)
            return value, (metrics, {**extra, "own": own})

        return loss

    def coder(self, data_dir: Path | None) -> Any:
        return self.frozen(data_dir)

    def told(self, coder: Any, known: Known) -> Known:
        return in_latents(known, codec_with(self.codec, coder["codec"]).encode)

    def as_pictures(self, coder: Any, x: Array, known: Known) -> Array:
        pictures = codec_with(self.codec, coder["codec"]).decode(x)
        if "mask" not in known:
            return pictures
        return jnp.where(known["mask"] == 1, known["image"], pictures)

    def resized(self, height: int, width: int) -> LatentExperiment:
        factor = self.image_shape[0] // self.latent_shape[0]
        latents = (height // factor, width // factor, *self.latent_shape[2:])
        shape = (height, width, *self.image_shape[2:])
        return dataclasses.replace(self, image_shape=shape, latent_shape=latents)

    def beginning(self, picture: np.ndarray, data_dir: Path | None) -> np.ndarray:
        codec = codec_with(self.codec, self.codec.arrays(data_dir))
        return np.asarray(codec.encode(jnp.asarray(picture)[None])[0])

    def check(self) -> None:
        super().check()
        if not isinstance(self.process, GaussianProcess):
            raise ValueError(f"{self.process} corrupts pictures, and not latents.")
        parts = (
            self.conditioning.parts
            if isinstance(self.conditioning, Joined)
            else (self.conditioning,)
        )
        for part in parts:
            name = type(part).__name__
            if isinstance(part, Grey | Edges):
                raise ValueError(f"{name} is of pictures' pixels, and a model of latents has none.")
            if isinstance(part, Inpainting | LowResolution) and not self.on_the_fly:
                raise ValueError(
                    f"{name} is made of the pictures, which the latents' data set doesn't have; "
                    "encode them on the fly."
                )
        if self.augment is not None and not self.on_the_fly:
            raise ValueError("latents aren't augmented; encode the pictures on the fly.")
        self._check_condition()

    def _check_condition(self) -> None:
        image = jax.eval_shape(self.blank_condition).image
        if image is not None and image.shape[1:3] != tuple(self.latent_shape[:2]):
            raise ValueError(
                f"the condition's pictures are of {image.shape[1:3]} and the latents of "
                f"{self.latent_shape[:2]}; the network reads both joined."
            )


@dataclass(frozen=True)
class _Retold(Conditioning):
    """A conditioning that reads a batch's "picture", if there is one, and is then told more."""

    part: Conditioning
    tell: Callable[[Known], Known]

    @property
    def drop(self) -> float:
        return self.part.drop

    @property
    def features(self) -> tuple[str, ...]:
        return self.part.features

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        image = batch.get("picture", batch["image"])
        return self.tell(self.part.known(key, index, {**batch, "image": image}))

    def condition(self, known: Known) -> Condition:
        return self.part.condition(known)

    def null(self, known: Known) -> Condition:
        return self.part.null(known)

    def blank(self, shape: tuple[int, ...]) -> Known:
        return self.part.blank(shape)


def retold(conditioning: Conditioning, tell: Callable[[Known], Known]) -> Conditioning:
    """The conditioning of batches that have latents as "image" and pictures as "picture".

    Args:
        conditioning: of pictures.
        tell: what is known of these -> what the network is told, such as latents.
    """
    if isinstance(conditioning, Joined):
        parts = tuple(retold(part, tell) for part in conditioning.parts)
        return dataclasses.replace(conditioning, parts=parts)
    return _Retold(conditioning, tell)
