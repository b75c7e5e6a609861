"""Training on from a Stable Diffusion checkpoint: the U-Net learns, codec and text encoder stay.

What `train.py configs/sd_finetune.py` leaves becomes a folder again by

    python -m diffusion_jax.interop.sd_training RUN FOLDER
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jaxtyping import Array

from diffusion_jax.interop.clip import load_clip
from diffusion_jax.interop.safetensors import read_json
from diffusion_jax.interop.sd_config import codec_from_config, latent_scale, unet_from_config
from diffusion_jax.interop.sd_parts import (
    CONFIG,
    TEXT_STEM,
    UNET_KEPT,
    Part,
    kept,
    load_autoencoder,
    load_unet,
    weights,
)
from diffusion_jax.interop.sd_scheduler import in_pipeline, read_grid
from diffusion_jax.interop.sd_table import Trained, read_trained
from diffusion_jax.interop.stable_diffusion import (
    SCHEDULER,
    load_stable_diffusion,
    save_stable_diffusion,
)
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.latent_unet import LatentUNet
from diffusion_jax.models.stack import Remat
from diffusion_jax.models.text_conditioning import Text
from diffusion_jax.systems.latent import codec_of
from diffusion_jax.training.cli import run_command
from diffusion_jax.training.experiment import Grid
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import Encode
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.types import Condition, Params


class Modules(NamedTuple):
    """Networks of a folder, without their parameters.

    Attributes:
        unet: the U-Net.
        codec: the autoencoder.
        features: of a token, by the text encoder.
    """

    unet: LatentUNet
    codec: KLAutoencoder
    features: int


def modules(folder: Path, *, dtype: Any = jnp.float32, remat: Remat = "none") -> Modules:
    """What the parts' config.json say; no array is read.

    Args:
        folder: of a pipeline of Stable Diffusion 1.x or 2.x.
        dtype, remat: of the U-Net.

    Raises:
        ValueError: an SDXL, a U-Net that reads more than latents, or fields that aren't known here.
        FileNotFoundError: a part that lacks its config.json.
    """

    def config(part: str) -> dict[str, Any]:
        return read_json(folder / part / CONFIG)

    unet, inputs = unet_from_config(config("unet"), dtype=dtype, remat=remat)
    codec = codec_from_config(config("vae"))
    if unet.sizes:
        raise ValueError(f"{folder} is an SDXL, whose sizes and crops aren't trained here.")
    if inputs.channels != codec.latents:
        raise ValueError(
            f"the U-Net of {folder} reads {inputs.channels} channels, and latents have "
            f"{codec.latents}; one for inpainting isn't trained here."
        )
    return Modules(unet, codec, inputs.text)


@functools.lru_cache(maxsize=2)
def text_part(folder: Path) -> Part:
    """The text encoder of a folder; raises as `load_clip`."""
    clip, params = load_clip(weights(folder / "text_encoder", TEXT_STEM, None))
    return Part(clip, params)


@functools.lru_cache(maxsize=2)
def codec_part(folder: Path) -> Part:
    """The autoencoder of a folder; raises as `load_autoencoder`."""
    return load_autoencoder(folder / "vae")


def trained(folder: Path) -> Trained:
    """How a folder's checkpoint was trained; raises as `read_trained`."""
    return read_trained(read_json(folder / SCHEDULER))


def grid(folder: Path) -> Grid:
    """The times on which a folder's checkpoint is sampled, whatever samples; raises as `read_grid`.

    A sampler that isn't known here keeps nobody from training.
    """
    config = in_pipeline(read_json(folder / SCHEDULER), "StableDiffusionPipeline")
    return functools.partial(read_grid, config)


@dataclass(frozen=True)
class CheckpointCodec:
    """The autoencoder of a folder, as a model of latents needs it; latents are means.

    Attributes:
        folder: of a pipeline.
    """

    folder: Path

    def functions(self) -> tuple[Encode, Encode]:
        codec = codec_of(modules(self.folder).codec, {})
        return codec.encoder, codec.decoder

    def arrays(self, data_dir: Path | None) -> dict[str, Any]:
        part = codec_part(self.folder)
        scale, shift = latent_scale(part.config)
        return {"params": part.params, "scale": jnp.float32(scale), "shift": jnp.float32(shift)}


@dataclass(frozen=True)
class ReadText(Text):
    """`tokens` [b n], of which a text encoder made "text" and of the empty text "no_text" [b n d].

    Attributes:
        tokenizer, drop: as in `Text`.
        size: d.
    """

    size: int = 768

    def condition(self, known: Known) -> Condition:
        return Condition(tokens=jnp.asarray(known["text"]))

    def null(self, known: Known) -> Condition:
        return Condition(tokens=jnp.asarray(known["no_text"]))


@dataclass(frozen=True, kw_only=True)
class FineTuning(LatentExperiment):
    """A `LatentUNet` trained on from a folder's; its conditioning is a `ReadText`.

    Attributes:
        folder: of a pipeline of Stable Diffusion 1.x or 2.x.
    """

    folder: Path
    on_the_fly: bool = True

    @property
    def texts(self) -> ReadText:
        """The conditioning."""
        assert isinstance(self.conditioning, ReadText), "configs/sd_finetune.py"
        return self.conditioning

    @property
    def reads_frozen(self) -> bool:
        return True

    def pretrained(self) -> Params:
        return jax.device_get(load_unet(self.folder / "unet").params)

    def frozen(self, data_dir: Path | None) -> Any:
        return {**super().frozen(data_dir), "text": text_part(self.folder).params}

    def blank_condition(self) -> Condition:
        return Condition(tokens=jnp.zeros((1, self.texts.tokenizer.length, self.texts.size)))

    def told(self, coder: Any, known: Known) -> Known:
        """The texts' features, of all layers, beside what is known."""
        clip = text_part(self.folder).module

        def read(ids: Array) -> Array:
            said: Any = clip.apply({"params": coder["text"]}, ids, method="encode_text")
            return said.tokens

        tokens = jnp.asarray(known["tokens"])
        empty = read(jnp.asarray(self.texts.tokenizer.encode(""))[None])
        nothing = jnp.broadcast_to(empty, (len(tokens), *empty.shape[1:]))
        return {**super().told(coder, known), "text": read(tokens), "no_text": nothing}

    def use(self, run_dir: Path) -> str:
        return f"-m diffusion_jax.interop.sd_training {run_dir} FOLDER"


@dataclass(frozen=True)
class ExportOptions:
    """Write a fine-tuned run as a folder that `sample.py --checkpoint` and diffusers read."""

    run_dir: tyro.conf.Positional[Path]
    """the folder that train.py wrote"""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """where it goes; everything but the U-Net is copied from the checkpoint it began with"""
    raw: bool = False
    """the raw parameters, and not the averaged ones"""


def export(options: ExportOptions) -> None:
    """The command above.

    Raises:
        ValueError: the run is of something else.
    """
    task = load_task(options.run_dir)
    if not isinstance(task, FineTuning):
        raise ValueError(f"{options.run_dir} wasn't trained by configs/sd_finetune.py.")
    if options.out.resolve() == task.folder.resolve():
        raise ValueError(f"{options.out} is the checkpoint that it began with; name another one.")
    config = read_json(task.folder / "unet" / CONFIG)
    params = load_params(task, options.run_dir, "raw" if options.raw else "ema")
    unet = Part(unet_from_config(config)[0], params, kept(config, UNET_KEPT))
    tuned = load_stable_diffusion(task.folder, unet=unet)
    save_stable_diffusion(options.out, tuned, task.folder)
    print(f"wrote {options.out}; python sample.py --checkpoint {options.out} --prompt TEXT")


if __name__ == "__main__":
    # The recipe imports this module by its name, and that one's `FineTuning` is what it makes.
    from diffusion_jax.interop import sd_training as own

    run_command(lambda: own.export(tyro.cli(own.ExportOptions)))
