"""sample.py --checkpoint FOLDER: pictures of texts from Stable Diffusion's weights."""

import dataclasses
import functools
import io
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from diffusion_jax.data import save_png
from diffusion_jax.data.files import write_atomically
from diffusion_jax.data.images import read_png
from diffusion_jax.interop.sd_drawing import (
    Run,
    changed,
    compile_checkpoint,
    draw_checkpoint,
    inpainted,
)
from diffusion_jax.interop.sd_lora import merge_lora
from diffusion_jax.interop.sd_options import CheckpointOptions, check, strength_of
from diffusion_jax.interop.sd_original import load_single_file
from diffusion_jax.interop.sd_plan import Plan, check_plan, plan_of
from diffusion_jax.interop.sd_system import (
    Prompted,
    system_of,
    tokenizers_of,
    tokens_of,
    told_of,
    zeros_for_nothing,
)
from diffusion_jax.interop.stable_diffusion import StableDiffusion, load_stable_diffusion
from diffusion_jax.models.conditioning import Known
from diffusion_jax.samplers import DDIM, Ancestral, DPMSolverPP, UniPC
from diffusion_jax.systems.latent import LatentDiffusion, begun, in_tiles, one_by_one
from diffusion_jax.training.chips import chip_of
from diffusion_jax.training.drawing import mosaic
from diffusion_jax.training.known_cli import in_range
from diffusion_jax.training.sharding import batch_parts, check_divides, make_mesh
from diffusion_jax.training.signals import ended_at_once
from diffusion_jax.types import Sampler

SAMPLERS: dict[str, Sampler] = {
    "ddim": DDIM(),
    "ancestral": Ancestral(),
    "dpm_solver": DPMSolverPP(order=2),
    "unipc": UniPC(order=2),
}


def checkpoint_command(argv: Sequence[str]) -> None:
    """sample.py --checkpoint FOLDER [--flags]."""
    options = tyro.cli(CheckpointOptions, args=list(argv), prog="sample.py")
    check(options)
    if options.compile_for:
        jax.config.update("jax_platforms", "cpu")  # before JAX looks for a TPU
        chip_of(options.compile_for)
    count = options.num or len(options.seeds) or len(options.prompt)
    many = options.devices or len(jax.local_devices())
    batch_size = options.batch_size or (1 if count == 1 or options.sliced else many)
    mesh = local_mesh(options, batch_size)
    check_divides(batch_size, batch_parts(mesh), what="--batch-size")
    if options.sliced and mesh.size > 1:
        raise ValueError(f"--sliced is for one device, and there are {mesh.size}: add --devices 1.")
    plan = plan_of(options)
    size = options.size or plan.size
    check_plan(options, plan, size)
    run, pictured = walk(options, plan, size)
    prompted = tokens_of(
        tokenizers_of(options.tokenizer or options.checkpoint, plan.texts),
        options.prompt,
        [options.negative or ""] * len(options.prompt),
    )
    parts = load(options)
    system = system_of(
        parts,
        size,
        steps=options.steps,
        guidance=None if options.guidance == 1.0 else options.guidance,
        sampler=None if options.sampler == "checkpoint" else SAMPLERS[options.sampler],
    )
    if options.tile is not None:
        system = dataclasses.replace(
            system, codec=in_tiles(system.codec, options.tile, parts.codec.module.factor)
        )
    if options.sliced:
        system = dataclasses.replace(system, codec=one_by_one(system.codec))
    if options.init_image:
        stage = begun(system.stage, strength_of(options))
        system = dataclasses.replace(system, stage=stage)
    known = {**told(options, parts, prompted, size), **pictured}
    if options.compile_for:
        print(compile_checkpoint(options.compile_for, run, system, known, batch_size))
        return
    kind = mesh.devices.flat[0].device_kind
    print(f"{mesh.size} x {kind}, {batch_size // mesh.size} pictures at a time on each", flush=True)
    with ended_at_once():
        pictures = draw_checkpoint(
            run,
            system,
            known,
            count,
            seed=options.seed,
            seeds=options.seeds,
            batch_size=batch_size,
            mesh=mesh,
        )
    save_png(options.out, mosaic(pictures, options.prompt if options.captions else ()))
    print(f"wrote {count} pictures to {options.out}")
    if options.npz:
        arrays = io.BytesIO()
        np.savez(arrays, pictures=pictures, seed=options.seeds or options.seed)
        write_atomically(options.npz, arrays.getvalue())
        print(f"wrote arrays to {options.npz}")


def local_mesh(options: CheckpointOptions, batch_size: int) -> Mesh:
    """Of this process's own devices: each host of a slice draws by itself."""
    devices = jax.local_devices()
    count = options.devices or math.gcd(batch_size, len(devices))
    if count > len(devices):
        raise ValueError(f"--devices is {count}, and there are {len(devices)} here.")
    if options.batch_size is None and not options.sliced:
        count = min(count, batch_size)  # one picture is drawn by one
    return make_mesh(devices=devices[:count])


def load(options: CheckpointOptions) -> StableDiffusion:
    """The checkpoint's parts, with --lora merged."""
    dtype = jnp.bfloat16 if options.bfloat16 else jnp.float32
    how: dict[str, Any] = {"dtype": dtype, "parameters": dtype}
    if options.checkpoint.is_file():
        parts = load_single_file(options.checkpoint, prediction=options.prediction, **how)
    else:
        parts = load_stable_diffusion(options.checkpoint, variant=options.variant, **how)
    if options.lora:
        parts = merge_lora(parts, options.lora, scale=options.lora_scale)
    return parts


def told(
    options: CheckpointOptions, parts: StableDiffusion, prompted: Prompted, size: tuple[int, int]
) -> Known:
    """What the U-Net is told of each prompt."""
    return told_of(
        parts,
        [jnp.asarray(one.ids) for one in prompted.texts],
        [jnp.asarray(one.ids) for one in prompted.negative],
        size,
        weights=[jnp.asarray(one.weights) for one in prompted.texts],
        negative_weights=[jnp.asarray(one.weights) for one in prompted.negative],
        original=options.original_size,
        corner=options.crop or (0, 0),
        zeros=options.negative is None and zeros_for_nothing(parts),
    )


def walk(options: CheckpointOptions, plan: Plan, size: tuple[int, int]) -> tuple[Run, Known]:
    """What draws, (system, key, known, index) -> pictures, and what else it is told."""
    if plan.reads_image and not options.inpaint:
        raise ValueError("this checkpoint draws parts of pictures: name --inpaint and --mask.")
    if options.init_image:
        picture = in_range(read_png(options.init_image, (*size, 3), what="--init-image"))[None]
        return changed, {"picture": picture}
    if options.inpaint:
        assert options.mask is not None
        picture = in_range(read_png(options.inpaint, (*size, 3), what="--inpaint"))[None]
        kept = (read_png(options.mask, (*size, 1), what="--mask") < 128)[None].astype(np.float32)
        if kept.min() == kept.max():
            raise ValueError(
                f"--mask {options.mask} is all {'black' if kept.all() else 'white'}, split at "
                "middle grey; white is drawn anew, black is kept."
            )
        return functools.partial(inpainted, reads_image=plan.reads_image), {
            "picture": picture,
            "kept": kept,
        }
    if options.variations is not None:
        return functools.partial(LatentDiffusion.variations, weight=options.variations), {}
    return LatentDiffusion.sample, {}
