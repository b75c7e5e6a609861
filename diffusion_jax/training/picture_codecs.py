"""Codecs whose pictures are to look right: a KL autoencoder and a vector-quantised one.

Both are trained by pixels, by the features of a fixed network, and against a discriminator.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.losses import adversarial, autoencoding
from diffusion_jax.losses.adversarial import Adversary, Latents, codec_loss, init_codec_extra
from diffusion_jax.models.autoencoder import (
    KLAutoencoder,
    Quantized,
    VQAutoencoder,
    nearest_codes,
)
from diffusion_jax.models.clip_resnet import ModifiedResNet
from diffusion_jax.models.cuts import gathered
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.models.features import FeatureMaps, stage_maps
from diffusion_jax.training.codecs import CodecTask, psnr
from diffusion_jax.training.contrastive import Contrastive
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.supervised import Supervised
from diffusion_jax.types import Extra, Key, Loss, Metrics, Params


class Judge(NamedTuple):
    """A fixed network whose features are compared.

    Attributes:
        maps: (params, pictures) -> its feature maps.
        params: () -> its parameters, read when training begins.
        weight: of the perceptual distance, beside that of pixels.
        channel_weights: its parameters -> w of each layer's channels; 1 by default.
    """

    maps: FeatureMaps
    params: Callable[[], Params]
    weight: float = 1.0
    channel_weights: Callable[[Params], tuple[Array, ...]] | None = None


class Player(NamedTuple):
    """The discriminator, and how it is played against.

    Attributes:
        network: pictures -> logits.
        start: steps before the players meet.
        weight: of the codec's part, beside the adaptive weight.
        game: both players' losses.
        most: of the adaptive weight.
    """

    network: PatchDiscriminator
    start: int = 0
    weight: float = 1.0
    game: adversarial.Game = adversarial.hinge()
    most: float = 1e4


@dataclass(frozen=True, kw_only=True)
class PictureCodecTask(CodecTask):
    """A codec trained to draw its pictures again, by pixels, by features, and against a player.

    Attributes:
        pixels: distance of pictures and reconstructions, [b].
        judge: of the perceptual distance; None leaves it out.
        player: the discriminator; None leaves it out.
    """

    last: ClassVar[tuple[str, ...]] = ("decoder", "conv_out", "kernel")
    pixels: Callable[[Array, Array], Array] = autoencoding.absolute_error
    judge: Judge | None = None
    player: Player | None = None

    @abc.abstractmethod
    def latents(self, params: Params, extra: Extra, key: Key, x: Array) -> Latents:
        """What the encoder makes of a training batch; `params` are the codec's own."""

    def grid(self, factor: int) -> tuple[int, int]:
        """Height and width of latents that many times smaller than the pictures."""
        return self.image_shape[0] // factor, self.image_shape[1] // factor

    def first_encoder(self) -> Extra:
        """What the encoder carries from step to step, before the first."""
        return ()

    def first_extra(self, data_dir: Path | None = None) -> adversarial.CodecExtra:
        """What the loss carries, before the first step."""
        judge = () if self.judge is None else self.judge.params()
        return init_codec_extra(self.first_encoder(), judge)

    def init_params(self, key: Key) -> Params:
        params = super().init_params(key)
        if self.player is None:
            return params
        first = self.player.network.init(jax.random.fold_in(key, 1), self.blank(1)["image"])
        return {**params, "discriminator": first["params"]}

    def loss(self) -> Loss:
        def decode(params: Params, z: Array) -> Array:
            return self.answer(params, z, "decode")

        return codec_loss(self.latents, decode, self.distance, self._adversary())

    def distance(self, judge: Params, x: Array, y: Array) -> tuple[Array, Metrics]:
        """How far reconstructions are: pixels, and features of the judge; both means."""
        near = jnp.mean(self.pixels(x, y))
        said = {"pixels": near, "psnr": jnp.mean(psnr(x, y))}
        if self.judge is None:
            return near, said
        judge = gathered(judge)
        real, drawn = (self.judge.maps(judge, pictures) for pictures in (x, y))
        weigh = self.judge.channel_weights
        weights = None if weigh is None else weigh(judge)
        far = jnp.mean(autoencoding.perceptual_distance(real, drawn, weights))
        return near + self.judge.weight * far, {**said, "perceptual": far}

    def check(self) -> None:
        super().check()
        if self.player is None:
            return
        if self.player.start < 0:
            raise ValueError(f"the players meet at step {self.player.start}; it must be 0 or more.")
        if self.player.start >= self.steps:
            raise ValueError(
                f"the discriminator joins at step {self.player.start}, and with --steps "
                f"{self.steps} it never joins; name --start below --steps, or leave it out with "
                "--adversarial 0."
            )

    def _adversary(self) -> Adversary | None:
        if self.player is None:
            return None
        player = self.player

        def score(params: Params, pictures: Array) -> Array:
            logits: Any = player.network.apply({"params": params}, pictures)
            return logits

        return Adversary(
            score=score,
            game=player.game,
            weight=player.weight,
            start=player.start * self.accumulate,
            last=self.last,
            most=player.most,
        )


@dataclass(frozen=True, kw_only=True)
class KLTask(PictureCodecTask):
    """A KL autoencoder.

    Attributes:
        network: the codec.
        kl_weight: of the KL, in nats, over the entries of a picture.
    """

    network: KLAutoencoder
    kl_weight: float = 1e-6

    @property
    def codec(self) -> KLAutoencoder:
        return self.network

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (*self.grid(self.network.factor), self.network.latents)

    def encode(self, params: Params, x: Float[Array, "b h w c"]) -> Array:
        return self.answer(params["codec"], x, "encode").mean

    def latents(self, params: Params, extra: Extra, key: Key, x: Array) -> Latents:
        q = self.answer(params, x, "encode")
        nats = jnp.mean(autoencoding.kl_to_standard_normal(q.mean, q.log_variance)) / x[0].size
        said = {"kl": nats, "latent_std": jnp.std(q.mean)}
        return Latents(q.sample(key), self.kl_weight * nats, said, extra)


@dataclass(frozen=True, kw_only=True)
class VQTask(PictureCodecTask):
    """A vector-quantised autoencoder.

    Attributes:
        network: the codec.
        commitment: weight of the encoder's part, beta in van den Oord et al.
        revival: weight of what brings lost codes back; 0 leaves them.
        dead: usage, in units of the average code's, below which a code is lost.
        usage_decay: of the running usage.
    """

    network: VQAutoencoder
    commitment: float = 0.25
    revival: float = 1.0
    dead: float = 0.01
    usage_decay: float = 0.99

    @property
    def codec(self) -> VQAutoencoder:
        return self.network

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (*self.grid(self.network.factor), self.network.features)

    def encode(self, params: Params, x: Float[Array, "b h w c"]) -> Array:
        return self.answer(params["codec"], x, "encode").vectors

    def decode(self, params: Params, z: Array) -> Float[Array, "b h w c"]:
        """Pictures of the codes nearest to latents, which a model of these needn't hit."""
        return self.decode_codes(params, nearest_codes(z, params["codec"]["codebook"]))

    def codes(self, params: Params, x: Float[Array, "b h w c"]) -> Array:
        """The codes of pictures, int32 [b h' w']."""
        return self.answer(params["codec"], x, "encode").codes

    def decode_codes(self, params: Params, codes: Array) -> Float[Array, "b h w c"]:
        """Pictures of codes."""
        return self.answer(params["codec"], codes, "decode_codes")

    def first_encoder(self) -> Extra:
        return autoencoding.init_usage(self.network.codes)

    def latents(self, params: Params, extra: Extra, key: Key, x: Array) -> Latents:
        q: Quantized = self.answer(params, x, "encode")
        usage = autoencoding.update_usage(extra, q.codes, self.usage_decay)
        codebook, commitment = autoencoding.quantisation(q.z, q.vectors)
        lost = autoencoding.revival(params["codebook"], q.z, usage, self.dead)
        penalty = codebook + self.commitment * commitment + self.revival * lost
        said = {"commitment": commitment, "revival": lost}
        said |= autoencoding.usage_metrics(usage, self.dead)
        return Latents(q.through, penalty, said, usage)


def judge_of(run_dir: Path, weight: float = 1.0) -> Judge:
    """The residual tower of a run, of CLIP or of labels, as a judge of pictures.

    The run is read when training begins: a trained codec doesn't need its judge any more.

    Raises:
        ValueError: then, if the run trained something else.
        FileNotFoundError: then, if there is no such run.
    """

    @functools.cache
    def read() -> tuple[FeatureMaps, Params]:
        task = load_task(run_dir)
        name, tower = "", None
        if isinstance(task, Supervised):
            name, tower = "tower", task.network.tower
        elif isinstance(task, Contrastive):
            name, tower = "image", task.clip.image
        if not isinstance(tower, ModifiedResNet):
            raise ValueError(
                f"{run_dir} holds no residual tower whose features could be compared; name a run "
                "such as one of configs/emoji64_groups.py."
            )
        with jax.ensure_compile_time_eval():  # it's asked for while the first state is traced
            params = jax.tree.map(np.asarray, load_params(task, run_dir)[name])
        return stage_maps(tower), params

    return Judge(lambda params, x: read()[0](params, x), lambda: read()[1], weight)
