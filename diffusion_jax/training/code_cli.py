"""The command line of sample.py for runs whose pictures are drawn code by code."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from jax.sharding import Mesh

from diffusion_jax.data import save_png
from diffusion_jax.data.files import write_atomically
from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.codes import CodePictures
from diffusion_jax.training.code_pictures import CodeTask
from diffusion_jax.training.distributed import to_host
from diffusion_jax.training.drawing import in_batches, mosaic
from diffusion_jax.training.known_cli import Told, check_finite, known_from
from diffusion_jax.training.needs import check_pinned
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.sample_cli import check_writable, sample_command
from diffusion_jax.training.sampling import check_known, count_of
from diffusion_jax.training.sharding import (
    MeshOptions,
    batch_parts,
    batched,
    check_divides,
    replicated,
    spread,
    under,
)
from diffusion_jax.training.signals import ended_at_once
from diffusion_jax.training.task import check_seed

OF_RUNS = ("--prior", "--upsampler", "--classifier", "--clip")  # what follows is another run


@dataclasses.dataclass(frozen=True)
class CodeOptions:
    """Draw pictures from a trained transformer of codes.

    Example: python sample.py runs/emoji_codes --prompt "cat face" --top-k 100 --num 16
    """

    run_dir: tyro.conf.Positional[Path]
    """the folder that train.py wrote"""
    num: int = 64
    """how many pictures"""
    seed: int = 0
    """picture i depends on the seed, i and what is told of it"""
    guidance: float | None = None
    """classifier-free guidance, gamma: 0 ignores what is told, 1 is none (default: the recipe's)"""
    temperature: float | None = None
    """of each draw: 0 takes the likeliest code (default: the recipe's)"""
    top_k: int | None = None
    """draw from so many of the likeliest codes alone (default: the recipe's)"""
    top_p: float | None = None
    """draw from the likeliest codes alone that together have this probability (default: the
    recipe's)"""
    told: Annotated[Told, tyro.conf.arg(name="")] = Told()
    """what the model is told"""
    weights: Literal["ema", "raw"] = "ema"
    """averaged or raw parameters"""
    step: int | Literal["best"] | None = None
    """the checkpoint's step, or "best": of the lowest loss (default: the newest)"""
    captions: bool = True
    """write each --prompt under its pictures in the grid"""
    out: Path = Path("samples.png")
    """where the PNG grid goes"""
    npz: Path | None = None
    """where arrays go: pictures [n h w c] float32 in [-1, 1], seed, and what was told"""
    batch_size: int = 16
    """pictures at a time, over all devices"""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = MeshOptions()
    """which devices"""
    data_dir: Path | None = None
    """folder of prepared TFDS sets, for held-out examples and the words of prompts"""
    recipe: Path | None = None
    """a recipe that isn't in configs/; its code is executed"""


def any_command(argv: Sequence[str]) -> None:
    """sample.py RUN [--flags]: by what the run trained."""
    (code_command if draws_codes(argv) else sample_command)(argv)


def code_command(argv: Sequence[str]) -> None:
    """sample.py RUN [--flags], of a `CodeTask`."""
    options = tyro.cli(CodeOptions, args=list(argv), prog="sample.py")
    task = load_task(options.run_dir, options.recipe)
    assert isinstance(task, CodeTask), "draws_codes"
    check_pinned(options.run_dir, task.needs)
    how = chosen(task, options)
    mesh = options.mesh.make()
    check_divides(options.batch_size, batch_parts(mesh), what="--batch-size")
    for path in filter(None, (options.out, options.npz)):
        check_writable(path)
    if options.npz and options.npz.resolve() == options.out.resolve():
        raise ValueError(f"--out and --npz are both {options.out}; one would replace the other.")
    with ended_at_once():
        known = known_from(task, options.num, options.told, options.data_dir)
        check_known(task, known, how["guidance"])
        params = load_params(task, options.run_dir, options.weights, options.step, mesh)
        told: dict[str, Any] = {"seed": options.seed, "batch_size": options.batch_size}
        pictures = draw_codes(task.system(params, **how), known, mesh=mesh, **told)
    save_png(options.out, mosaic(pictures, options.told.prompt if options.captions else ()))
    print(f"wrote {options.num} pictures to {options.out}")
    if options.npz:
        arrays = io.BytesIO()
        np.savez(arrays, pictures=pictures, seed=options.seed, **known)
        write_atomically(options.npz, arrays.getvalue())
        print(f"wrote arrays to {options.npz}")


def draws_codes(argv: Sequence[str]) -> bool:
    """Whether a command line names a run of a `CodeTask`."""
    flag, run, recipe = "", None, None
    for word in argv:
        if word.startswith("--"):
            flag, given, value = word.partition("=")
            recipe = value if flag == "--recipe" and given else recipe
            flag = "" if given else flag
            continue
        if flag == "--recipe":
            recipe = word
        elif run is None and flag not in OF_RUNS and (Path(word) / "recipe.json").is_file():
            run = word
        if flag != "--upsampler":  # which takes several
            flag = ""
    if run is None:
        return False
    return isinstance(load_task(Path(run), Path(recipe) if recipe else None), CodeTask)


def chosen(task: CodeTask, options: CodeOptions) -> dict:
    """Guidance, temperature, top_k and top_p: the flags', else the recipe's.

    Raises:
        ValueError: a number out of range.
    """
    names = ("guidance", "temperature", "top_k", "top_p")
    said = {name: getattr(options, name) for name in names}
    how = {name: getattr(task, name) if said[name] is None else said[name] for name in names}
    if options.num < 1 or options.batch_size < 1:
        raise ValueError("--num and --batch-size are at least 1.")
    check_seed(options.seed, "--seed")
    for name in ("guidance", "temperature"):
        check_finite("--" + name, how[name])
    if how["temperature"] < 0:
        raise ValueError(f"--temperature is {how['temperature']:g}; it must be at least 0.")
    if how["top_k"] is not None and how["top_k"] < 1:
        raise ValueError(f"--top-k is {how['top_k']}; it must be at least 1.")
    if how["top_p"] is not None and not 0 < how["top_p"] <= 1:
        raise ValueError(f"--top-p is {how['top_p']:g}; it must be over 0 and at most 1.")
    return how


def draw_codes(
    system: CodePictures,
    known: Known,
    *,
    seed: int,
    batch_size: int,
    mesh: Mesh,
    desc: str | None = None,
) -> np.ndarray:
    """All pictures [n h w c] in [-1, 1] of what is known, a batch at a time, with a progress bar.

    Picture i depends on the seed, i and what is known of it.

    Args:
        system: copied to every device of the mesh.
        known: arrays [n ...].
        seed: of the draws.
        batch_size: pictures at a time, over all devices.
        mesh: the devices.
        desc: of the bar.

    Raises:
        ValueError: the batch doesn't divide among the devices.
    """
    check_divides(batch_size, batch_parts(mesh), what="the sampling batch size")
    whole, cut = replicated(mesh), batched(mesh)
    apart = dataclasses.replace(system, codec=jax.device_get(system.codec))  # from one device
    everywhere = jax.jit(lambda system: system, out_shardings=whole)(apart)
    sample = jax.jit(
        under(mesh, CodePictures.sample),
        in_shardings=(whole, whole, cut, cut),
        out_shardings=cut,
    )
    key = jax.random.key(seed)

    def run(index: jax.Array) -> np.ndarray:
        numbers = np.asarray(index)
        some = {
            name: np.take(np.asarray(value), numbers, axis=0, mode="clip")
            for name, value in known.items()
        }
        return to_host(sample(everywhere, key, *spread((some, numbers), mesh)))

    return in_batches(run, count_of(known), batch_size, desc=desc)
