"""What an upsampler makes of shrunk held-out pictures: python benchmarks/upsampling_quality.py
runs/emoji_upsampler

Peak signal to noise against the pictures themselves, with pixels in [-1, 1], the mean over
pictures: nearest neighbours, a bicubic kernel, a draw, and the mean of several draws. A draw is
further from the picture than the mean of all that it could be, by up to 3 dB, and sharper.
"""

from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.models.image_conditioning import low_resolution, shrink  # noqa: E402
from diffusion_jax.systems import Stage  # noqa: E402
from diffusion_jax.training.codecs import psnr  # noqa: E402
from diffusion_jax.training.drawing import in_batches  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.stages import stage_of  # noqa: E402


def decibels(drawn: np.ndarray, pictures: np.ndarray) -> str:
    """The mean PSNR of pictures [n h w c]."""
    return f"{np.mean(psnr(pictures, drawn)):.2f}"


def main(
    run: tyro.conf.Positional[Path],
    split: str = "test",
    num: int = 96,
    draws: int = 4,
    steps: tuple[int, ...] = (10, 25),
    batch_size: int = 16,
    seed: int = 0,
    data_dir: Path | None = None,
    out: Path = Path("runs/upsampling_quality.png"),
) -> None:
    """Prints a table, and writes pictures: small ones, bicubic, a draw each, and real ones.

    Args:
        run: of configs/emoji_upsampler.py.
        split: of the run's data set.
        num: of pictures, evenly from the split.
        draws: whose mean is the last column.
        steps: of the sampler, a row each.
        batch_size: pictures at a time.
        seed: of the noise.
        data_dir: folder of prepared TFDS sets.
        out: PNG of twelve of them.
    """
    task = load_experiment(run)
    small = low_resolution(task.conditioning)
    if small is None:
        raise SystemExit(f"{run} enlarges nothing.")
    source, params = task.source(split, data_dir), load_params(task, run)
    chosen = np.linspace(0, len(source) - 1, num).astype(int)
    pictures = np.stack([source[int(i)]["image"] for i in chosen]).astype(np.float32) / 127.5 - 1
    low = np.asarray(shrink(jnp.asarray(pictures), small.factor))
    nearest = low.repeat(small.factor, 1).repeat(small.factor, 2)
    bicubic = np.asarray(jax.image.resize(low, pictures.shape, "cubic"))
    draw = jax.jit(Stage.draw)
    print(f"nearest {decibels(nearest, pictures)} dB, bicubic {decibels(bicubic, pictures)} dB")
    print(f"| steps | a draw, dB | mean of {draws}, dB |\n|---|---|---|")
    drawn = bicubic
    for count in steps:
        stage = stage_of(task, params, steps=count, shape=pictures.shape[1:])

        def some(index: jax.Array, stage: Stage = stage) -> np.ndarray:
            told = {"low": low[np.asarray(index) % num]}  # from the same small picture, other draws
            return np.asarray(draw(stage, jax.random.key(seed), told, index))

        found = in_batches(some, draws * num, batch_size).reshape(draws, *pictures.shape)
        drawn = found[0]
        print(f"| {count} | {decibels(drawn, pictures)} | {decibels(found.mean(0), pictures)} |")
    shown = np.concatenate([rows[:12] for rows in (nearest, bicubic, drawn, pictures)])
    save_png(out, grid(to_uint8(shown), columns=min(12, num)))
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)
