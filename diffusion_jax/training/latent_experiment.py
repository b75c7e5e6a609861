"""A diffusion model of a codec's latents as a task: `Experiment`, whose pictures are decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.models.conditioning import Conditioning, Joined, Known
from diffusion_jax.models.image_conditioning import Edges, Grey, Inpainting, LowResolution
from diffusion_jax.systems.latent import Codec, in_latents
from diffusion_jax.training.codecs import load_codec
from diffusion_jax.training.experiment import Experiment, unfinished
from diffusion_jax.training.latents import (
    Scale,
    codec_params,
    coder_of,
    load_latent_codec,
    scale_of,
)
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
        codec: run folder of a `CodecTask`; it's among `needs` too.
        latent_shape: (h, w, z).
        on_the_fly: the source has pictures, which each step encodes anew, so that they may be
            augmented and conditions made of them; else it's `latents.latents`.

    Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.2.
    """

    codec: Path
    latent_shape: tuple[int, ...]
    on_the_fly: bool = False
    finish: Callable[[Denoiser, Process], Denoiser] = unfinished

    @property
    def shape(self) -> tuple[int, ...]:
        return self.latent_shape

    @property
    def data_shape(self) -> tuple[int, ...]:
        return self.image_shape if self.on_the_fly else self.latent_shape

    def blank_condition(self) -> Condition:
        def encode(x: Array) -> Array:
            return jnp.zeros((len(x), *self.latent_shape))

        known = self.conditioning.blank((1, *self.image_shape))
        return self.conditioning.condition(in_latents(known, encode))

    def first_extra(self) -> Extra:
        """The codec's parameters and scale beside the loss's own, for encoding in the step."""
        if not self.on_the_fly:
            return super().first_extra()
        with jax.ensure_compile_time_eval():  # it's asked for while the first state is traced
            params = jax.tree.map(np.asarray, codec_params(self.codec))
            scale = scale_of(self.codec)
        return {"codec": params, "scale": scale, "own": super().first_extra()}

    def loss(self) -> Loss:
        if not self.on_the_fly:
            return super().loss()
        task = load_codec(self.codec)

        def loss(params: Params, extra: Extra, key: Key, batch: Batch):
            coder = coder_of(task, extra["codec"], Scale(*extra["scale"]))

            def encode(x: Array) -> Array:
                return jax.lax.stop_gradient(coder.encode(x))

            told = of_latents(self.conditioning, encode)
            of = dataclasses.replace(self, conditioning=told)
            seen = {**batch, "image": encode(batch["image"]), "picture": batch["image"]}
            value, (metrics, own) = self.make_loss(of)(params, extra["own"], key, seen)
            return value, (metrics, {**extra, "own": own})

        return loss

    def coder(self, data_dir: Path | None) -> Codec:
        return load_latent_codec(self.codec, data_dir)

    def told(self, coder: Codec, known: Known) -> Known:
        return in_latents(known, coder.encode)

    def as_pictures(self, coder: Codec, x: Array, known: Known) -> Array:
        pictures = coder.decode(x)
        if "mask" not in known:
            return pictures
        return jnp.where(known["mask"] == 1, known["image"], pictures)

    def resized(self, height: int, width: int) -> LatentExperiment:
        factor = self.image_shape[0] // self.latent_shape[0]
        latents = (height // factor, width // factor, *self.latent_shape[2:])
        shape = (height, width, *self.image_shape[2:])
        return dataclasses.replace(self, image_shape=shape, latent_shape=latents)

    def beginning(self, picture: np.ndarray, data_dir: Path | None) -> np.ndarray:
        return np.asarray(self.coder(data_dir).encode(jnp.asarray(picture)[None])[0])

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
        self._check_condition()

    def _check_condition(self) -> None:
        image = jax.eval_shape(self.blank_condition).image
        if image is not None and image.shape[1:3] != tuple(self.latent_shape[:2]):
            raise ValueError(
                f"the condition's pictures are of {image.shape[1:3]} and the latents of "
                f"{self.latent_shape[:2]}; the network reads both joined."
            )


@dataclass(frozen=True)
class _OfLatents(Conditioning):
    """A conditioning that reads a batch's "picture", and whose pictures are then encoded."""

    part: Conditioning
    encode: Callable[[Array], Array]

    @property
    def drop(self) -> float:
        return self.part.drop

    @property
    def features(self) -> tuple[str, ...]:
        return self.part.features

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        known = self.part.known(key, index, {**batch, "image": batch["picture"]})
        return in_latents(known, self.encode)

    def condition(self, known: Known) -> Condition:
        return self.part.condition(known)

    def null(self, known: Known) -> Condition:
        return self.part.null(known)

    def blank(self, shape: tuple[int, ...]) -> Known:
        return self.part.blank(shape)


def of_latents(conditioning: Conditioning, encode: Callable[[Array], Array]) -> Conditioning:
    """The conditioning of batches that have latents as "image" and pictures as "picture"."""
    if isinstance(conditioning, Joined):
        return Joined(tuple(of_latents(part, encode) for part in conditioning.parts))
    return _OfLatents(conditioning, encode)
