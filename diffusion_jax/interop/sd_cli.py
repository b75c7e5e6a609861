"""sample.py --checkpoint FOLDER: pictures of texts from Stable Diffusion's weights."""

import dataclasses
import functools
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from diffusion_jax.data import save_png
from diffusion_jax.data.files import write_atomically
from diffusion_jax.data.images import read_png
from diffusion_jax.interop.layouts import flat
from diffusion_jax.interop.sd_config import unet_inputs
from diffusion_jax.interop.sd_drawing import (
    Run,
    changed,
    compile_checkpoint,
    draw_checkpoint,
    inpainted,
)
from diffusion_jax.interop.sd_lora import merge_lora
from diffusion_jax.interop.sd_original import Prediction, load_single_file
from diffusion_jax.interop.sd_system import (
    load_tokenizers,
    system_of,
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
from diffusion_jax.training.known_cli import check_finite, in_range
from diffusion_jax.training.sample_cli import check_writable
from diffusion_jax.training.sharding import batch_parts, check_divides, make_mesh
from diffusion_jax.training.signals import ended_at_once
from diffusion_jax.training.task import check_seed
from diffusion_jax.types import Sampler

SAMPLERS: dict[str, Sampler] = {
    "ddim": DDIM(),
    "ancestral": Ancestral(),
    "dpm_solver": DPMSolverPP(order=2),
    "unipc": UniPC(order=2),
}


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """Draw pictures of texts from Stable Diffusion 1.x, 2.x or XL.

    Example: python sample.py --checkpoint stable-diffusion-v1-5 --prompt "a red bicycle"
    """

    checkpoint: Path
    """a folder as diffusers has it, or one safetensors file in the original layout"""
    prompt: tuple[str, ...] = ()
    """texts, in turn; "(words:1.3)" count so much more, and any length is read"""
    negative: str | None = None
    """what to keep away from (default: nothing, which is the empty text, and zeros of SDXL)"""
    num: int | None = None
    """how many pictures (default: one for each prompt)"""
    size: tuple[int, int] | None = None
    """HEIGHT WIDTH in pixels (default: the checkpoint's)"""
    guidance: float = 7.5
    """classifier-free guidance, gamma; 1 is none, for half the work"""
    steps: int = 50
    """of the sampler"""
    sampler: Literal["checkpoint", "ddim", "ancestral", "dpm_solver", "unipc"] = "checkpoint"
    """how to walk; by default as scheduler_config.json says"""
    seed: int = 0
    """picture i depends on the seed, i and its texts"""
    seeds: tuple[int, ...] = ()
    """a seed for each picture, which is then picture 0 of it"""
    init_image: Path | None = None
    """PNG of --size to begin from"""
    strength: float | None = None
    """how much of --init-image is forgotten (0.8)"""
    variations: float | None = None
    """how far --num pictures are from picture 0 of the seed: 0 not at all, 1 as others"""
    inpaint: Path | None = None
    """PNG of --size with a part to draw anew"""
    mask: Path | None = None
    """PNG: white where --inpaint is drawn anew"""
    lora: Path | None = None
    """safetensors with a low-rank update to merge"""
    lora_scale: float = 1.0
    """how much of it"""
    tokenizer: Path | None = None
    """folder with tokenizer/, for a single file"""
    prediction: Prediction | None = None
    """what a single file's U-Net predicts (default: epsilon; 2.x has to be told)"""
    variant: str | None = None
    """which files of the folder, such as fp16"""
    bfloat16: bool = False
    """compute and keep parameters in bfloat16"""
    tile: int | None = None
    """see pictures in squares of so many pixels, for the codec's sake: large ones in less memory"""
    sliced: bool = False
    """decode a batch's pictures one by one, on one device: large batches in less memory"""
    batch_size: int = 1
    """pictures at a time, over all devices"""
    devices: int | None = None
    """how many share a batch, each with a copy of the weights (default: as many as can)"""
    compile_for: str | None = None
    """a TPU topology such as v5e:2x2: say what its compiler says of drawing a batch, and end"""
    captions: bool = False
    """write each prompt under its pictures"""
    out: Annotated[Path, tyro.conf.arg(metavar="PNG")] = Path("samples.png")
    """where the grid goes"""
    npz: Path | None = None
    """where arrays go: pictures [n h w c] float32 in [-1, 1]"""


def checkpoint_command(argv: Sequence[str]) -> None:
    """sample.py --checkpoint FOLDER [--flags]."""
    options = tyro.cli(CheckpointOptions, args=list(argv), prog="sample.py")
    check(options)
    if options.compile_for:
        jax.config.update("jax_platforms", "cpu")  # before JAX looks for a TPU
        chip_of(options.compile_for)
    mesh = local_mesh(options)
    check_divides(options.batch_size, batch_parts(mesh), what="--batch-size")
    if options.sliced and mesh.size > 1:
        raise ValueError(f"--sliced is for one device, and there are {mesh.size}: add --devices 1.")
    parts = load(options)
    size = options.size or default_size(parts)
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
        strength = 0.8 if options.strength is None else options.strength
        system = dataclasses.replace(system, stage=begun(system.stage, strength))
    count = options.num or len(options.seeds) or len(options.prompt)
    run, pictured = walk(options, parts, size)
    known = {**told(options, parts, size), **pictured}
    if options.compile_for:
        print(compile_checkpoint(options.compile_for, run, system, known, options.batch_size))
        return
    with ended_at_once():
        pictures = draw_checkpoint(
            run,
            system,
            known,
            count,
            seed=options.seed,
            seeds=options.seeds,
            batch_size=options.batch_size,
            mesh=mesh,
        )
    if not np.isfinite(pictures).all():
        raise FloatingPointError("a picture isn't finite, so nothing is written.")
    save_png(options.out, mosaic(pictures, options.prompt if options.captions else ()))
    print(f"wrote {count} pictures to {options.out}")
    if options.npz:
        arrays = io.BytesIO()
        np.savez(arrays, pictures=pictures, seed=options.seed)
        write_atomically(options.npz, arrays.getvalue())
        print(f"wrote arrays to {options.npz}")


def local_mesh(options: CheckpointOptions) -> Mesh:
    """Of this process's own devices: each host of a slice draws by itself."""
    devices = jax.local_devices()
    count = options.devices or math.gcd(options.batch_size, len(devices))
    if not 1 <= count <= len(devices):
        raise ValueError(f"--devices is {count}, and there are {len(devices)} here.")
    return make_mesh(devices=devices[:count])


def check(options: CheckpointOptions) -> None:
    """Raises, before any work, for flags that can't be followed."""
    if not options.prompt:
        raise ValueError("--checkpoint needs a text: --prompt.")
    for name in ("num", "steps", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    check_finite("--guidance", options.guidance)
    for seed in (options.seed, *options.seeds):
        check_seed(seed, "--seed")
    if options.seeds and options.num not in (None, len(options.seeds)):
        raise ValueError(f"--seeds has {len(options.seeds)} and --num is {options.num}.")
    if bool(options.inpaint) != bool(options.mask):
        raise ValueError("--inpaint and --mask go together.")
    if options.inpaint and options.init_image:
        raise ValueError("--inpaint and --init-image were both given; name one of them.")
    if options.strength is not None and not options.init_image:
        raise ValueError("--strength belongs to --init-image.")
    if options.strength is not None and not 0 < options.strength <= 1:
        raise ValueError(f"--strength is {options.strength}; it must be over 0 and at most 1.")
    if options.variations is not None:
        if options.seeds or options.init_image or options.inpaint:
            raise ValueError("--variations are of one --seed's picture 0, and of no PNG.")
        if options.num is None or options.num < 2:
            raise ValueError("--variations needs --num of at least 2: picture 0 is the one itself.")
        if not 0 <= options.variations <= 1:
            raise ValueError(f"--variations is {options.variations}; it must be from 0 to 1.")
    if options.tile is not None and options.tile < 1:
        raise ValueError(f"--tile is {options.tile}; it must be at least 1.")
    if options.sliced and (options.seeds or options.compile_for):
        raise ValueError("--sliced goes with neither --seeds nor --compile-for.")
    if options.compile_for and options.seeds:
        raise ValueError("--compile-for is of a batch by --seed; leave --seeds out.")
    check_finite("--lora-scale", options.lora_scale)
    if options.size and min(options.size) < 1:
        raise ValueError(f"--size is {options.size}; both must be at least 1.")
    if options.variant and options.checkpoint.is_file():
        raise ValueError("--variant chooses among a folder's files, and --checkpoint is one file.")
    if options.prediction and not options.checkpoint.is_file():
        raise ValueError("--prediction is for a single file; a folder says it itself.")
    if options.npz and options.npz.resolve() == options.out.resolve():
        raise ValueError(f"--out and --npz are both {options.out}; one would replace the other.")
    for path in filter(None, (options.out, options.npz)):
        check_writable(path)


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


def default_size(parts: StableDiffusion) -> tuple[int, int]:
    """Height and width of the pictures that the checkpoint was trained on."""
    side: Any = parts.unet.config.get("sample_size") or 64
    height, width = (side, side) if isinstance(side, int) else side
    factor = parts.codec.module.factor
    return height * factor, width * factor


def told(options: CheckpointOptions, parts: StableDiffusion, size: tuple[int, int]) -> Known:
    """What the U-Net is told of each prompt."""
    folder = options.tokenizer or options.checkpoint
    prompted = tokens_of(
        load_tokenizers(folder, parts),
        options.prompt,
        [options.negative or ""] * len(options.prompt),
    )
    return told_of(
        parts,
        [jnp.asarray(one.ids) for one in prompted.texts],
        [jnp.asarray(one.ids) for one in prompted.negative],
        size,
        weights=[jnp.asarray(one.weights) for one in prompted.texts],
        negative_weights=[jnp.asarray(one.weights) for one in prompted.negative],
        zeros=options.negative is None and zeros_for_nothing(parts),
    )


def walk(
    options: CheckpointOptions, parts: StableDiffusion, size: tuple[int, int]
) -> tuple[Run, Known]:
    """What draws, (system, key, known, index) -> pictures, and what else it is told."""
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
        return functools.partial(inpainted, reads_image=reads_image(parts)), {
            "picture": picture,
            "kept": kept,
        }
    if reads_image(parts):
        raise ValueError("this checkpoint draws parts of pictures: name --inpaint and --mask.")
    if options.variations is not None:
        return functools.partial(LatentDiffusion.variations, weight=options.variations), {}
    return LatentDiffusion.sample, {}


def reads_image(parts: StableDiffusion) -> bool:
    """Whether the U-Net is told of a picture with a hole beside its latents."""
    shapes = {path: leaf.shape for path, leaf in flat(parts.unet.params).items()}
    return unet_inputs(shapes).channels > parts.unet.module.out_channels
