"""Stable Diffusion's U-Net and autoencoder, each from and to a folder as diffusers has them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from diffusion_jax.interop.layouts import (
    Row,
    Shapes,
    checked,
    flat,
    from_theirs,
    their_shapes,
    to_theirs,
)
from diffusion_jax.interop.safetensors import open_tensors, read_json, refuse_pickle, write_tensors
from diffusion_jax.interop.sd_config import (
    codec_from_config,
    codec_shapes,
    codec_to_config,
    unet_from_config,
    unet_inputs,
    unet_shapes,
    unet_to_config,
)
from diffusion_jax.interop.sd_layouts import ATTENTION, OLD_ATTENTION, codec_rows, unet_rows
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.latent_unet import LatentUNet
from diffusion_jax.models.stack import Remat
from diffusion_jax.types import Params

CONFIG = "config.json"
STEM, TEXT_STEM = "diffusion_pytorch_model", "model"  # names of files, without variant and suffix
WHOLE = f"{STEM}.safetensors"
# Fields of config.json that the modules don't have, and that are kept beside them.
UNET_KEPT = ("sample_size", "use_linear_projection", "upcast_attention")
CODEC_KEPT = ("sample_size", "scaling_factor", "shift_factor", "force_upcast")


class Part(NamedTuple):
    """A network with its parameters: `part.module.apply({"params": part.params}, ...)`.

    Attributes:
        module: the network.
        params: its parameters.
        config: fields of diffusers' config.json that the module doesn't have, such as sample_size
            and the autoencoder's scaling_factor.
    """

    module: Any
    params: Params
    config: Mapping[str, Any] = {}


def load_unet(
    folder: str | os.PathLike[str],
    *,
    variant: str | None = None,
    pooled: int | None = None,
    remat: Remat = "none",
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> Part:
    """A `UNet2DConditionModel` of Stable Diffusion 1.x, 2.x or XL as a `LatentUNet`.

    Args:
        folder: with config.json and safetensors, whole or in shards.
        variant: "fp16", "bf16", ...: which of the folder's files; by default those without one,
            or the only one there is.
        pooled: features of an XL's pooled text; by default what six sizes leave.
        remat, dtype: of the module.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: another architecture, options that aren't known here, or arrays that don't fit:
            all are named.
        FileNotFoundError: no such folder, config.json or safetensors.
    """
    config, file = _files(folder, variant)
    unet, inputs = unet_from_config(config, pooled=pooled, remat=remat, dtype=dtype)
    rows = unet_rows(unet, linear_projection=config.get("use_linear_projection", False))
    with open_tensors(file) as tensors:
        params = from_theirs(tensors, rows, unet_shapes(unet, inputs), _nothing, parameters)
    return Part(unet, params, kept(config, UNET_KEPT))


def load_autoencoder(
    folder: str | os.PathLike[str],
    *,
    variant: str | None = None,
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> Part:
    """An `AutoencoderKL` as a `KLAutoencoder`.

    Args:
        folder: with config.json and safetensors, whole or in shards; attention's layers may have
            their names of before 2023.
        variant: as `load_unet`'s.
        dtype: of the module.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError, FileNotFoundError: as `load_unet`.
    """
    config, file = _files(folder, variant)
    codec = codec_from_config(config, dtype=dtype)
    with open_tensors(file) as tensors:
        old = any(".attentions.0.query." in name for name in tensors.shapes)
        rows = codec_rows(codec, OLD_ATTENTION if old else ATTENTION)
        params = from_theirs(tensors, rows, codec_shapes(codec), _nothing, parameters)
    return Part(codec, params, kept(config, CODEC_KEPT))


def save_unet(folder: str | os.PathLike[str], part: Part) -> None:
    """Writes config.json and float32 safetensors, which diffusers' `UNet2DConditionModel` loads.

    Args:
        folder: is made where there is none; files of these names are replaced.
        part: a `LatentUNet`.

    Raises:
        ValueError: what diffusers can't express, or parameters of another U-Net.
    """
    unet: LatentUNet = part.module
    inputs = unet_inputs({path: leaf.shape for path, leaf in flat(part.params).items()})
    config = {**unet_to_config(unet, inputs), **part.config}
    rows = unet_rows(unet, linear_projection=config.get("use_linear_projection", False))
    _write(Path(folder), part, rows, unet_shapes(unet, inputs), config)


def save_autoencoder(folder: str | os.PathLike[str], part: Part) -> None:
    """Writes config.json and float32 safetensors, which diffusers' `AutoencoderKL` loads.

    Args:
        folder: is made where there is none; files of these names are replaced.
        part: a `KLAutoencoder`.

    Raises:
        ValueError: what diffusers can't express, or parameters of another autoencoder.
    """
    codec: KLAutoencoder = part.module
    config = {**codec_to_config(codec), **part.config}
    _write(Path(folder), part, codec_rows(codec), codec_shapes(codec), config)


def _write(
    folder: Path, part: Part, rows: Sequence[Row], shapes: Shapes, config: Mapping[str, Any]
) -> None:
    module: nn.Module = part.module
    leaves = checked(part.params, shapes, type(module).__name__)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WHOLE, their_shapes(rows, shapes), to_theirs(rows, leaves))
    (folder / CONFIG).write_text(json.dumps(config, indent=2))


def _files(folder: str | os.PathLike[str], variant: str | None) -> tuple[dict[str, Any], Path]:
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"there is no {folder / CONFIG}.")
    return read_json(folder / CONFIG), weights(folder, STEM, variant)


def weights(folder: Path, stem: str, variant: str | None) -> Path:
    """The file of a part's arrays, or the index of their shards.

    Args:
        folder: of the part.
        stem: of the files' names.
        variant: as `load_unet`'s.

    Raises:
        ValueError: pickles alone.
        FileNotFoundError: no safetensors, or none of that variant, or several without a choice.
    """
    found = variants(folder, stem)
    if variant in found:
        return found[variant]
    if variant is None and len(found) == 1:
        return next(iter(found.values()))
    if not found:
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            refuse_pickle(file)
        raise FileNotFoundError(f"there is no {folder / stem}.safetensors.")
    names = ", ".join(file.name for file in found.values())
    if variant is None:
        raise FileNotFoundError(f"{folder} has {names}: name one of the variants.")
    raise FileNotFoundError(f"{folder} has no variant {variant!r}; there are {names}.")


def variants(folder: Path, stem: str) -> dict[str | None, Path]:
    """`weights` by variant; of None is the file without one."""
    # Shards of a variant are called stem.fp16-00001-of-00002.safetensors, and are no variants.
    named = r"\.((?:(?!-\d+-of-\d+)[\w-])+)"
    pattern = re.compile(rf"{stem}(?:{named})?\.safetensors(?:\.index(?:{named})?\.json)?")
    found: dict[str | None, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.fullmatch(file.name)
        if match:
            found.setdefault(match[1] or match[2], file)
    return found


def kept(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A config's fields of these names."""
    return {name: config[name] for name in names if name in config}


def _nothing(name: str) -> bool:
    return False
