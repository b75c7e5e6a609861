"""CLIP from and to safetensors: transformers' folders, and OpenAI's and OpenCLIP's files."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from diffusion_jax.interop.clip_fields import CONFIG, PICTURES
from diffusion_jax.interop.clip_layouts import (
    not_a_parameter,
    openai_rows,
    tower_of,
    transformers_rows,
)
from diffusion_jax.interop.clip_openai import from_openai
from diffusion_jax.interop.clip_sizes import (
    from_config,
    shapes_of,
    to_config,
    to_pictures,
)
from diffusion_jax.interop.layouts import (
    Row,
    Shapes,
    checked,
    from_theirs,
    their_shapes,
    to_theirs,
)
from diffusion_jax.interop.safetensors import (
    WHOLE,
    Tensors,
    open_tensors,
    read_json,
    write_tensors,
)
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_vision import VisionTransformer
from diffusion_jax.models.stack import Remat
from diffusion_jax.types import Params


def load_clip(
    path: str | os.PathLike[str],
    *,
    clip: CLIP | None = None,
    remat: Remat = "none",
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> tuple[CLIP, Params]:
    """A CLIP and its parameters: `clip.apply({"params": params}, ...)`.

    Two layouts are known by the names of their arrays:

    - transformers': a folder with config.json (and preprocessor_config.json, for the mean and std
      of pictures), of a `CLIPModel`, or of one tower with or without projection, whose CLIP has
      None for the other one;
    - OpenAI's and OpenCLIP's, of which the sizes are inferred: heads of 64 channels, quick GELUs,
      texts that end with the last id. Give `clip` where that isn't so.

    Args:
        path: a safetensors file, an index of shards, or a folder with either.
        clip: of these sizes, instead of what the file says.
        remat, dtype: of the towers, where `clip` isn't given.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: a pickle, a file that is cut short, a config whose fields aren't known here, or
            arrays that don't fit, of which the first are named.
        FileNotFoundError: no such file or folder, or no config.json.
    """
    path = Path(path)
    with open_tensors(path) as tensors:
        openai = "token_embedding.weight" in tensors.shapes
        if clip is None:
            computation = {"remat": remat, "dtype": dtype}
            if openai:
                clip = from_openai(tensors.shapes, **computation)
            else:
                config, pictures = _configs(path)
                clip = from_config(config, tensors.shapes, pictures, **computation)
        ours = shapes_of(clip)
        rows = openai_rows(clip, ours) if openai else _their_rows(clip, ours, tensors)
        return clip, from_theirs(tensors, rows, ours, not_a_parameter, parameters)


def _configs(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"there is no {folder / CONFIG}, which has the sizes; copy it there, or give `clip`."
        )
    pictures = folder / PICTURES
    return read_json(folder / CONFIG), read_json(pictures) if pictures.is_file() else {}


def _their_rows(clip: CLIP, ours: Shapes, tensors: Tensors) -> list[Row]:
    starts = ("text_model.", "vision_model.")
    prefixed = any(name.startswith(starts) for name in tensors.shapes)
    return transformers_rows(clip, ours, prefixed=prefixed)


def save_clip(folder: str | os.PathLike[str], clip: CLIP, params: Params) -> None:
    """Writes config.json, preprocessor_config.json and model.safetensors, which transformers loads.

    Args:
        folder: is made where there is none; files of these names are replaced.
        clip: of vision transformers and text transformers; one tower may be None.
        params: of the CLIP.

    Raises:
        ValueError: what transformers can't express (a residual network, a bias of the logits, an
            activation of yours), or parameters that aren't this CLIP's.
    """
    ours = shapes_of(clip)
    config = to_config(clip)
    leaves = checked(params, ours, "CLIP")
    # Names as all of its versions read them.
    rows = transformers_rows(clip, ours)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WHOLE, rows, leaves, ours)
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    if clip.image is not None:
        pictures = to_pictures(tower_of(clip.image, VisionTransformer))
        (folder / PICTURES).write_text(json.dumps(pictures, indent=2))


def save_openai_clip(file: str | os.PathLike[str], clip: CLIP, params: Params) -> None:
    """Writes a safetensors file in OpenAI's layout, which OpenCLIP's `load_state_dict` takes.

    Args:
        file: is replaced.
        clip: of two towers; a residual network has `FrozenBatchNorm`.
        params: of the CLIP.

    Raises:
        ValueError: another norm, half a CLIP, or parameters that aren't this CLIP's.
    """
    ours = shapes_of(clip)
    rows = openai_rows(clip, ours)
    _write(Path(file), rows, checked(params, ours, "CLIP"), ours)


def _write(file: Path, rows: Sequence[Row], leaves: dict[str, Any], ours: Shapes) -> None:
    write_tensors(file, their_shapes(rows, ours), to_theirs(rows, leaves))
