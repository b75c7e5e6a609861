"""What sample.py --checkpoint knows of a checkpoint before gigabytes of it are read."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.interop.clip_layouts import tower_of
from diffusion_jax.interop.safetensors import open_tensors, read_json
from diffusion_jax.interop.sd_config import codec_from_config, unet_from_config
from diffusion_jax.interop.sd_options import CheckpointOptions, strength_of
from diffusion_jax.interop.sd_original import inputs_of, networks_of
from diffusion_jax.interop.sd_parts import CONFIG
from diffusion_jax.interop.sd_scheduler import in_pipeline, read_grid, read_walk
from diffusion_jax.interop.sd_table import Config, read_trained
from diffusion_jax.interop.stable_diffusion import SCHEDULER, TEXTS, is_xl, present, read_index
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.systems.latent import check_tile


class Plan(NamedTuple):
    """What a checkpoint draws.

    Attributes:
        size: height and width of the pictures that it was trained on.
        factor: how much smaller latents are.
        step: what heights and widths must be multiples of.
        texts: length of each text encoder, and the id that fills its texts up, or None.
        reads_image: whether the U-Net is told of a picture with a hole beside its latents.
        xl: whether it is told of sizes and crops.
        scheduler: of scheduler_config.json, as its pipeline corrects it.
    """

    size: tuple[int, int]
    factor: int
    step: int
    texts: list[tuple[int, int | None]]
    reads_image: bool
    xl: bool
    scheduler: Config


def plan_of(options: CheckpointOptions) -> Plan:
    """By a folder's config.json, or by the names and shapes of a single file.

    Raises:
        ValueError, FileNotFoundError: as `load_stable_diffusion` and `load_single_file`, but for
            arrays that don't fit.
    """
    if options.checkpoint.is_file():
        return _of_file(options)
    return _of_folder(options.checkpoint, options.variant)


def check_plan(options: CheckpointOptions, plan: Plan, size: tuple[int, int]) -> None:
    """Refuses flags that this checkpoint can't follow.

    Raises:
        ValueError: such a flag, or a scheduler_config.json.
    """
    if size[0] % plan.step or size[1] % plan.step:
        raise ValueError(
            f"pictures of {size[0]}x{size[1]} can't be drawn by this checkpoint; height and width "
            f"of --size must be multiples of {plan.step}."
        )
    if options.tile is not None:
        check_tile(options.tile, plan.factor)
    if options.init_image and int(options.steps * strength_of(options)) < 1:
        raise ValueError(
            f"--strength is {strength_of(options)}; of {options.steps} steps it must leave one."
        )
    if options.sampler == "checkpoint":
        read_walk(plan.scheduler, options.steps)
    else:
        read_trained(plan.scheduler)
        read_grid(plan.scheduler, options.steps)
    for flag, value in (("--original-size", options.original_size), ("--crop", options.crop)):
        if value is not None and not plan.xl:
            raise ValueError(f"{flag} is for an SDXL, and this checkpoint is told of no sizes.")


def _of_file(options: CheckpointOptions) -> Plan:
    with open_tensors(options.checkpoint) as tensors:
        n = networks_of(tensors, prediction=options.prediction)
        inputs, _ = inputs_of(tensors)
    return Plan(
        (n.side * n.codec.factor,) * 2,
        n.codec.factor,
        n.codec.factor * 2 ** (len(n.unet.channels) - 1),
        [(tower_of(text.clip.text, TextTransformer).length, text.pad) for text in n.texts],
        inputs.channels > n.codec.latents,
        n.unet.sizes > 0,
        in_pipeline(n.scheduler, "XL" if n.unet.sizes else ""),
    )


def _latent_size(unet: Config, *, xl: bool) -> tuple[int, int]:
    """In training. Before its version 0.9 diffusers wrote 32 where 1.x has 64, and corrects it."""
    side: Any = unet.get("sample_size") or 64
    if not isinstance(side, int):
        return side[0], side[1]
    version = re.match(r"0\.(\d+)", str(unet.get("_diffusers_version")))
    if version and int(version[1]) < 9 and not xl:
        side = max(side, 64)
    return side, side


def _of_folder(folder: Path, variant: str | None) -> Plan:
    index = read_index(folder, variant=variant)

    def config(part: str) -> dict[str, Any]:
        return read_json(folder / part / CONFIG)

    texts = [config(name) for name in present(index, TEXTS)]
    pooled = texts[-1].get("projection_dim", 512) if is_xl(index) else None
    unet, inputs = unet_from_config(config("unet"), pooled=pooled)
    codec = codec_from_config(config("vae"))
    height, width = _latent_size(config("unet"), xl=is_xl(index))
    return Plan(
        (height * codec.factor, width * codec.factor),
        codec.factor,
        codec.factor * 2 ** (len(unet.channels) - 1),
        [(text.get("max_position_embeddings", 77), None) for text in texts],
        inputs.channels > codec.latents,
        is_xl(index),
        in_pipeline(read_json(folder / SCHEDULER), str(index["_class_name"])),
    )
