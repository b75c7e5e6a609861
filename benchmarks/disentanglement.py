"""Which latent knows which factor: python benchmarks/disentanglement.py runs/vae_shapes_1
runs/vae_shapes_4 runs/vae_shapes_16

The mutual information gap between a VAE's latents, drawn from its posterior as its decoder has them
in training, and the colour, shape, size and place of single shapes, with what each latent tells of
each factor; beside it the gap of an untrained network.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.evaluation.disentanglement import mutual_information_gap  # noqa: E402
from diffusion_jax.training.codecs import VAETask, load_codec  # noqa: E402
from diffusion_jax.training.runs import load_params  # noqa: E402
from diffusion_jax.types import Params  # noqa: E402

NAMES = ("colour", "shape", "size", "column", "row")


def factors_of(record: dict[str, Any]) -> tuple[int, ...]:
    """Of a record of one object: its colour and shape as numbers, its width and place in pixels."""
    label, (x0, y0, x1, _) = int(record["box_label"][0]), record["boxes"][0]
    side = record["image"].shape[0]
    column, row, width = (round(side * float(v)) for v in (x0, y0, x1 - x0))
    return label // 3, label % 3, width, column, row


def latents_of(task: VAETask, params: Params, pictures: jax.Array) -> jax.Array:
    """Draws from q(z | x): of a latent that says nothing, noise, where means would still tell."""
    return task.answer(params["codec"], pictures, "encode").sample(jax.random.key(0))


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    count: int = 4000,
    bins: int = 20,
    data_dir: Path | None = None,
) -> None:
    """Prints a table a run.

    Args:
        runs: of configs/vae_shapes.py.
        count: training pictures at most; few captions of one shape are held out.
        bins: of each latent's histogram.
        data_dir: folder of prepared TFDS sets.
    """
    for run in runs:
        task = load_codec(run)
        source = task.source("train", data_dir)
        records = [source[i] for i in range(min(count, len(source)))]
        factors = np.array([factors_of(r) for r in records])
        pictures = np.stack([r["image"] for r in records]) / np.float32(127.5) - 1
        if not isinstance(task, VAETask):
            raise SystemExit(f"{run} holds no plain VAE.")
        read = jax.jit(latents_of, static_argnums=0)
        untrained = task.init_params(jax.random.key(1))
        print(f"{run}: {len(records)} pictures")
        for name, params in {"trained": load_params(task, run), "untrained": untrained}.items():
            gap = mutual_information_gap(np.asarray(read(task, params, pictures)), factors, bins)
            print(f"{name}: MIG {gap.mean:.3f}")
            for factor, share, told in zip(NAMES, gap.factors, gap.told.T, strict=True):
                shares = " ".join(f"{v:.2f}" for v in told)
                print(f"  {factor:7} gap {share:.2f}, told by each latent {shares}")


if __name__ == "__main__":
    tyro.cli(main)
