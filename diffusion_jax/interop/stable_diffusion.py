"""Stable Diffusion from and to folders as diffusers has them: one for each part, safetensors alone.

    model_index.json      which pipeline, and of which classes its parts are
    unet/  vae/           config.json, diffusion_pytorch_model*.safetensors
    text_encoder/         config.json, model*.safetensors; XL's second one is text_encoder_2
    tokenizer/            vocabulary and merges; XL's second one is tokenizer_2
    scheduler/            scheduler_config.json

What filters pictures (safety_checker, feature_extractor) isn't read, nor written.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffusion_jax.interop.clip import load_clip, save_clip
from diffusion_jax.interop.safetensors import open_tensors, read_json
from diffusion_jax.interop.sd_config import check_channels, latent_scale
from diffusion_jax.interop.sd_parts import (
    CONFIG,
    STEM,
    TEXT_STEM,
    Part,
    load_autoencoder,
    load_unet,
    save_autoencoder,
    save_unet,
    variants,
    weights,
)
from diffusion_jax.models.stack import Remat

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
TASKS = ("", "Img2Img", "Inpaint")
PIPELINES = (
    *(f"StableDiffusion{task}Pipeline" for task in TASKS),
    *(f"StableDiffusionXL{task}Pipeline" for task in TASKS),
)
# part -> the classes that it may be of
CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
TEXTS, TOKENIZERS = ("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2")


class StableDiffusion(NamedTuple):
    """The parts of a pipeline.

    Attributes:
        unet: a `LatentUNet`.
        codec: a `KLAutoencoder`, pictures in [-1, 1].
        texts: a `CLIP` without pictures' tower for each text encoder, one or two.
        scheduler: of scheduler_config.json.
        pipeline: of model_index.json.
    """

    unet: Part
    codec: Part
    texts: tuple[Part, ...]
    scheduler: Mapping[str, Any] = {}
    pipeline: Mapping[str, Any] = {}

    @property
    def scale(self) -> float:
        """What latents are multiplied by, after the shift, for the U-Net."""
        return latent_scale(self.codec.config)[0]

    @property
    def shift(self) -> float:
        """What is subtracted from latents before."""
        return latent_scale(self.codec.config)[1]

    @property
    def text_names(self) -> list[str]:
        """Of the folder of each text encoder: an XL's refiner has but the second one."""
        named = present(self.pipeline, TEXTS)
        return named if len(named) == len(self.texts) else list(TEXTS[: len(self.texts)])


def load_stable_diffusion(
    folder: str | os.PathLike[str],
    *,
    variant: str | None = None,
    unet: Part | None = None,
    remat: Remat = "none",
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> StableDiffusion:
    """Stable Diffusion 1.x, 2.x or XL, also for image-to-image and inpainting.

    Arrays are read one by one: memory holds the parameters and, beside them, one array.

    Args:
        folder: a pipeline's, with model_index.json.
        variant: "fp16", "bf16", "non_ema", ...: which files of the parts that have it; of others,
            and by default, those without one, or the only one there is.
        unet: instead of the folder's, whose arrays then aren't read.
        remat, dtype: of the networks.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: another pipeline or class of a part, options that aren't known here, arrays
            that don't fit, pickles, a U-Net that is told of more than this package knows.
        FileNotFoundError: of parts that the index names, files that aren't there, all named before
            any array is read.
    """
    folder = Path(folder)
    index = read_index(folder, variant=variant, read_unet=unet is None)
    told = {"dtype": dtype, "parameters": parameters, "remat": remat}
    towers = []
    for name in present(index, TEXTS):
        chosen = _chosen(folder / name, TEXT_STEM, variant)
        clip, params = load_clip(weights(folder / name, TEXT_STEM, chosen), **told)
        if clip.text is None:
            raise ValueError(f"{folder / name} is no text encoder.")
        towers.append(Part(clip, params))
    pooled = towers[-1].module.text.features if is_xl(index) else None
    if unet is None:
        chosen = _chosen(folder / "unet", STEM, variant)
        unet = load_unet(folder / "unet", variant=chosen, pooled=pooled, **told)
    del told["remat"]
    chosen = _chosen(folder / "vae", STEM, variant)
    codec = load_autoencoder(folder / "vae", variant=chosen, **told)
    return StableDiffusion(unet, codec, tuple(towers), read_json(folder / SCHEDULER), index)


def save_stable_diffusion(
    folder: str | os.PathLike[str],
    system: StableDiffusion,
    tokenizers: str | os.PathLike[str],
) -> None:
    """Writes a pipeline's folder in float32, which diffusers loads.

    Args:
        folder: is made where there is none; files of these names are replaced.
        system: its `pipeline` says which task it is for; where it says nothing, text to image.
        tokenizers: another pipeline's folder, whose tokenizer (and tokenizer_2) is copied.

    Raises:
        ValueError: what diffusers can't express, or parameters of other networks.
        FileNotFoundError: no tokenizers.
    """
    folder = Path(folder)
    names = present(system.pipeline, TOKENIZERS) or list(TOKENIZERS[: len(system.texts)])
    missing = [name for name in names if not (Path(tokenizers) / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"there is no {', '.join(missing)} in {tokenizers}.")

    index = _index_of(system, names)
    save_unet(folder / "unet", system.unet)
    save_autoencoder(folder / "vae", system.codec)
    for name, part in zip(system.text_names, system.texts, strict=True):
        save_clip(folder / name, part.module, part.params)
    for name in names:
        shutil.copytree(Path(tokenizers) / name, folder / name, dirs_exist_ok=True)
    (folder / SCHEDULER).parent.mkdir(exist_ok=True)
    (folder / SCHEDULER).write_text(json.dumps(dict(system.scheduler), indent=2))
    (folder / INDEX).write_text(json.dumps(index, indent=2))


def _index_of(system: StableDiffusion, tokenizers: list[str]) -> dict[str, Any]:
    """model_index.json, without what isn't written."""
    scheduler = system.scheduler.get("_class_name")
    if scheduler is None:
        raise ValueError("the system's scheduler has no _class_name, such as DDIMScheduler.")
    index: dict[str, Any] = {
        name: value for name, value in system.pipeline.items() if not isinstance(value, list)
    }
    xl = "XL" if len(system.texts) == 2 else ""
    index.setdefault("_class_name", f"StableDiffusion{xl}Pipeline")
    index["unet"] = ["diffusers", *CLASSES["unet"]]
    index["vae"] = ["diffusers", *CLASSES["vae"]]
    index["scheduler"] = ["diffusers", scheduler]
    parts = [*TEXTS, *TOKENIZERS] if is_xl(index) else [TEXTS[0], TOKENIZERS[0]]
    index |= {name: [None, None] for name in parts}
    for name, part in zip(system.text_names, system.texts, strict=True):
        plain, projected = CLASSES["text_encoder"]
        index[name] = ["transformers", plain if part.module.text.features is None else projected]
    index |= {name: ["transformers", "CLIPTokenizer"] for name in tokenizers}
    if not is_xl(index):
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return index


def read_index(
    folder: Path, *, variant: str | None = None, read_unet: bool = True
) -> dict[str, Any]:
    """model_index.json of a folder that has all that it names; no array is read.

    Args:
        folder, variant: as of `load_stable_diffusion`.
        read_unet: whether the U-Net's arrays must be there.

    Raises:
        ValueError, FileNotFoundError: as `load_stable_diffusion`, but for what is in the parts.
    """
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"there is no {folder / INDEX}, which names a pipeline's parts.")
    index = read_json(folder / INDEX)
    _check_index(folder, index)
    _check_files(folder, index, variant, read_unet=read_unet)
    return index


def _check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuses a pipeline that isn't known, and such classes of its parts."""
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(
            f"{folder} is a {kind!r:.80}; these pipelines are known: {', '.join(PIPELINES)}."
        )
    texts = present(index, TEXTS)
    problems = []
    for name in ("unet", "vae", *(texts or TEXTS[:1])):
        entry = index.get(name)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in CLASSES[name]:
            wanted = " or ".join(CLASSES[name])
            problems.append(f"{name} is a {found!r:.80}, and {wanted} is known here")
    if problems:
        raise ValueError(f"{folder / INDEX}: {'; '.join(problems)}.")


def _check_files(
    folder: Path, index: Mapping[str, Any], variant: str | None, *, read_unet: bool
) -> None:
    """Refuses a folder with files missing; of arrays, the files' headers are read alone."""
    stems = {"unet": STEM, "vae": STEM} | dict.fromkeys(present(index, TEXTS), TEXT_STEM)
    missing = []
    for file in (*(f"{name}/{CONFIG}" for name in stems), SCHEDULER):
        if not (folder / file).is_file():
            missing.append(f"there is no {file}")
    for name in present(index, TOKENIZERS):
        if not (folder / name).is_dir():
            missing.append(f"there is no {name}/")
    there = {v for name, stem in stems.items() for v in variants(folder / name, stem) if v}
    if variant and variant not in there:
        listed = ", ".join(sorted(there)) or "none"
        missing.append(f"no part has a variant {variant!r}; there is {listed}")
    for name, stem in stems.items():
        try:
            if name != "unet" or read_unet:
                chosen = _chosen(folder / name, stem, variant)
                with open_tensors(weights(folder / name, stem, chosen)):
                    pass
        except FileNotFoundError as error:
            missing.append(str(error).removesuffix(".").replace(f"{folder}/", ""))
    if missing:
        raise FileNotFoundError(f"{folder} lacks parts that it names: {'; '.join(missing)}.")
    channels = read_json(folder / "unet" / CONFIG).get("in_channels", 4)
    latents = read_json(folder / "vae" / CONFIG).get("latent_channels", 4)
    if isinstance(channels, int) and isinstance(latents, int):  # else the part's reader says it
        check_channels(folder, channels, latents)


def _chosen(folder: Path, stem: str, variant: str | None) -> str | None:
    """The variant, if the part has it: of 1.5's "non_ema" there is but a U-Net."""
    return variant if variant in variants(folder, stem) else None


def present(index: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Which of these parts model_index.json has."""
    return [name for name in names if (index.get(name) or [None])[0] is not None]


def is_xl(index: Mapping[str, Any]) -> bool:
    """Whether model_index.json is an SDXL's."""
    return "XL" in str(index.get("_class_name"))
