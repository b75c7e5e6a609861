"""CLIP guidance of a diffusion model: python benchmarks/clip_guidance.py

    python train.py configs/shapes_captions.py     # the model, asked for nothing here
    python train.py configs/shapes_clip.py         # the guide
    python benchmarks/clip_guidance.py runs/shapes_captions runs/shapes_clip \
        --noised runs/shapes_clip_noised

The model draws without a caption, and CLIP alone steers it to one. The exact judge of the shapes
says how many of the caption's attributes the pictures obey.
"""

from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from diffusion_jax import sample  # noqa: E402
from diffusion_jax.data import grid, save_png, shapes, to_uint8  # noqa: E402
from diffusion_jax.evaluation.shapes import judge_caption  # noqa: E402
from diffusion_jax.random import white_noise  # noqa: E402
from diffusion_jax.training.contrastive import Contrastive, text_encoder  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params, load_task  # noqa: E402
from diffusion_jax.training.steering_cli import check_clip, told_by_clip  # noqa: E402


def main(
    model: tyro.conf.Positional[Path],
    guide: tyro.conf.Positional[Path],
    noised: Path | None = None,
    num: int = 64,
    steps: int = 12,
    scales: tuple[float, ...] = (0.0, 30.0, 100.0, 300.0),
    out: Path | None = None,
) -> None:
    """Prints the table of docs/clip.md.

    Args:
        model: a run of configs/shapes_captions.py.
        guide: a run of configs/shapes_clip.py, on clean pictures: it sees x0 through the model.
        noised: one on noised pictures: it sees x_t.
        num: captions of the test split, a picture each.
        steps: of the recipe's sampler.
        scales: of the guidance.
        out: a PNG of 16 pictures a row, a row for each guide and scale.
    """
    experiment = load_experiment(model)
    params = load_params(experiment, model)
    size = experiment.image_shape[0]
    source = shapes("test", size)
    captions = [source[i]["caption"] for i in range(num)]
    known = experiment.conditioning.blank((num, *experiment.image_shape))
    times, process = experiment.grid(steps), experiment.process
    like = jnp.zeros((num, *experiment.image_shape))
    start = process.prior(white_noise(jax.random.key(1), jnp.arange(num), like))

    print(f"{num} test captions, {steps} steps\n")
    print("| guide | scale | attributes obeyed, % | whole, % |\n|---|---:|---:|---:|")
    rows = []
    guides = {"CLIP, of x0": guide, "noise-aware CLIP, of x_t": noised}
    for name, run in guides.items():
        if run is None:
            continue
        clip = load_task(run)
        if not isinstance(clip, Contrastive):
            raise SystemExit(f"{run} holds no CLIP.")
        check_clip(experiment, clip)
        own = load_params(clip, run)

        @jax.jit
        def draw(scale: jax.Array, texts: jax.Array, clip=clip, own=own) -> jax.Array:
            told = told_by_clip(experiment, clip, own, texts, scale)
            denoiser = told.denoiser(params, known, None)
            return sample(jax.random.key(0), experiment.sampler, process, denoiser, start, times)

        texts = text_encoder(clip, own)(captions)
        for scale in scales:
            pictures = to_uint8(np.asarray(draw(jnp.float32(scale), texts)))
            verdicts = [judge_caption(p, c) for p, c in zip(pictures, captions, strict=True)]
            obeyed = sum(v.obeyed for v in verdicts) / sum(v.asked for v in verdicts)
            whole = np.mean([v.whole for v in verdicts])
            print(f"| {name} | {scale:g} | {100 * obeyed:.1f} | {100 * whole:.1f} |", flush=True)
            rows.append(pictures[:16])
    if out is not None:
        save_png(out, grid(np.concatenate(rows), columns=16))


if __name__ == "__main__":
    tyro.cli(main)
