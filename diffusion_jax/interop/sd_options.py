"""The flags of sample.py --checkpoint, and which of them can't be followed."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion_jax.interop.sd_original import Prediction
from diffusion_jax.training.known_cli import check_finite
from diffusion_jax.training.sample_cli import check_writable
from diffusion_jax.training.task import check_seed


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
    original_size: tuple[int, int] | None = None
    """HEIGHT WIDTH that an SDXL is told of the picture before its crop (default: --size)"""
    crop: tuple[int, int] | None = None
    """TOP LEFT that an SDXL is told of the crop (default: 0 0)"""
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
    """picture of exactly --size to begin from"""
    strength: float | None = None
    """how much of --init-image is forgotten (0.8)"""
    variations: float | None = None
    """how far --num pictures are from picture 0 of the seed: 0 not at all, 1 as others"""
    inpaint: Path | None = None
    """picture of exactly --size with a part to draw anew"""
    mask: Path | None = None
    """picture of that size: white where --inpaint is drawn anew"""
    lora: Path | None = None
    """safetensors with a low-rank update to merge"""
    lora_scale: float = 1.0
    """how much of it"""
    tokenizer: Path | None = None
    """folder with tokenizer/, which a single file needs"""
    prediction: Prediction | None = None
    """what a single file's U-Net predicts (default: as it says, or epsilon; 2.x must be told)"""
    variant: str | None = None
    """which files of the folder, such as fp16"""
    bfloat16: bool = False
    """compute and keep parameters in bfloat16"""
    tile: int | None = None
    """see pictures in squares of so many pixels, for the codec's sake: large ones in less memory"""
    sliced: bool = False
    """decode a batch's pictures one by one, on one device: large batches in less memory"""
    batch_size: int | None = None
    """pictures at a time, over all devices (default: one for each device, of one picture 1)"""
    devices: int | None = None
    """how many share a batch, each with a copy of the weights (default: what divides it)"""
    compile_for: str | None = None
    """a TPU topology such as v5e:2x2: say what its compiler says of drawing a batch, and end"""
    captions: bool = False
    """write each prompt under its pictures"""
    out: Annotated[Path, tyro.conf.arg(metavar="PNG")] = Path("samples.png")
    """where the grid of all pictures goes"""
    npz: Path | None = None
    """where each picture by itself goes: pictures [n h w c] float32 in [-1, 1]"""


def strength_of(options: CheckpointOptions) -> float:
    """How much of --init-image is forgotten."""
    return 0.8 if options.strength is None else options.strength


def check(options: CheckpointOptions) -> None:
    """Raises, before any work, for flags that can't be followed."""
    if not options.prompt:
        raise ValueError("--checkpoint needs a text: --prompt.")
    for name in ("num", "steps", "batch_size", "devices"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    check_finite("--guidance", options.guidance)
    for seed in (options.seed, *options.seeds):
        check_seed(seed, "--seed")
    if options.seeds and options.seed:
        raise ValueError("--seed and --seeds were both given; name one of them.")
    if options.lora_scale != 1.0 and not options.lora:
        raise ValueError("--lora-scale belongs to --lora.")
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
    for flag, file in (("--checkpoint", options.checkpoint), ("--lora", options.lora)):
        if file is not None and not file.exists():
            raise FileNotFoundError(f"{flag}: there is no {file}.")
    check_finite("--lora-scale", options.lora_scale)
    if options.size and min(options.size) < 1:
        raise ValueError(f"--size is {options.size}; both must be at least 1.")
    if options.original_size and min(options.original_size) < 1:
        raise ValueError(f"--original-size is {options.original_size}; both must be at least 1.")
    if options.crop and min(options.crop) < 0:
        raise ValueError(f"--crop is {options.crop}; both must be at least 0.")
    if options.checkpoint.is_file() and options.tokenizer is None:
        raise ValueError("--checkpoint is one file, without a tokenizer: add --tokenizer FOLDER.")
    if options.variant and options.checkpoint.is_file():
        raise ValueError("--variant chooses among a folder's files, and --checkpoint is one file.")
    if options.prediction and not options.checkpoint.is_file():
        raise ValueError("--prediction is for a single file; a folder says it itself.")
    if options.npz and options.npz.resolve() == options.out.resolve():
        raise ValueError(f"--out and --npz are both {options.out}; one would replace the other.")
    for path in filter(None, (options.out, options.npz)):
        check_writable(path)
