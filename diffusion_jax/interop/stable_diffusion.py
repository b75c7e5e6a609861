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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from diffusion_jax.interop.clip import load_clip, save_clip
from diffusion_jax.interop.safetensors import read_json
from diffusion_jax.interop.sd_parts import (
    TEXT_STEM,
    Part,
    load_autoencoder,
    load_unet,
    save_autoencoder,
    save_unet,
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
        return self.codec.config.get("scaling_factor", 0.18215)

    @property
    def shift(self) -> float:
        """What is subtracted from latents before."""
        return self.codec.config.get("shift_factor") or 0.0


def load_stable_diffusion(
    folder: str | os.PathLike[str],
    *,
    variant: str | None = None,
    remat: Remat = "none",
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> StableDiffusion:
    """Stable Diffusion 1.x, 2.x or XL, also for image-to-image and inpainting.

    Arrays are read one by one: memory holds the parameters and, beside them, one array.

    Args:
        folder: a pipeline's, with model_index.json.
        variant: "fp16", "bf16", ...: which files of each part; by default those without one, or
            the only one there is.
        remat, dtype: of the networks.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: another pipeline or class of a part, options that aren't known here, arrays
            that don't fit, pickles.
        FileNotFoundError: parts that the index names and that aren't there, all named.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"there is no {folder / INDEX}, which names a pipeline's parts.")
    index = read_json(folder / INDEX)
    texts = _check_index(folder, index)
    told = {"dtype": dtype, "parameters": parameters, "remat": remat}
    towers = []
    for name in texts:
        clip, params = load_clip(weights(folder / name, TEXT_STEM, variant), **told)
        if clip.text is None:
            raise ValueError(f"{folder / name} is no text encoder.")
        towers.append(Part(clip, params))
    pooled = towers[-1].module.text.features if _is_xl(index) else None
    unet = load_unet(folder / "unet", variant=variant, pooled=pooled, **told)
    del told["remat"]
    codec = load_autoencoder(folder / "vae", variant=variant, **told)
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
    names = [part for part in TOKENIZERS if system.pipeline.get(part, [None])[0] is not None]
    names = names or list(TOKENIZERS[: len(system.texts)])
    missing = [name for name in names if not (Path(tokenizers) / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"there is no {', '.join(missing)} in {tokenizers}.")

    index = _index_of(system, names)
    save_unet(folder / "unet", system.unet)
    save_autoencoder(folder / "vae", system.codec)
    for name, part in zip(_present_texts(index), system.texts, strict=True):
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
    texts = _present_texts(system.pipeline) or list(TEXTS[: len(system.texts)])
    parts = [*TEXTS, *TOKENIZERS] if _is_xl(index) else [TEXTS[0], TOKENIZERS[0]]
    index |= {name: [None, None] for name in parts}
    for name, part in zip(texts, system.texts, strict=True):
        plain, projected = CLASSES["text_encoder"]
        index[name] = ["transformers", plain if part.module.text.features is None else projected]
    index |= {name: ["transformers", "CLIPTokenizer"] for name in tokenizers}
    if not _is_xl(index):
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        index["requires_safety_checker"] = False
    return index


def _check_index(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The text encoders; refuses a pipeline that isn't known, and one with parts missing."""
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(
            f"{folder} is a {kind!r:.80}; these pipelines are known: {', '.join(PIPELINES)}."
        )
    texts = _present_texts(index)
    problems = []
    for name in ("unet", "vae", *(texts or TEXTS[:1])):
        entry = index.get(name)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in CLASSES[name]:
            wanted = " or ".join(CLASSES[name])
            problems.append(f"{name} is a {found!r:.80}, and {wanted} is known here")
    if problems:
        raise ValueError(f"{folder / INDEX}: {'; '.join(problems)}.")
    files = [f"{name}/config.json" for name in ("unet", "vae", *texts)]
    missing = [file for file in (*files, SCHEDULER) if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, of parts that it names.")
    return texts


def _present_texts(index: Mapping[str, Any]) -> list[str]:
    """The text encoders that there are: an XL's refiner has but the second one."""
    return [name for name in TEXTS if (index.get(name) or [None])[0] is not None]


def _is_xl(index: Mapping[str, Any]) -> bool:
    return "XL" in str(index.get("_class_name"))
