"""How good are the digits: python benchmarks/digits_quality.py runs/digits --out report

Prints, writes to report.json, and draws (samples.png):
- how many of 1,000 guided, class-conditional samples a support vector machine, trained on the
  real training digits alone, reads as their label;
- the Fréchet distance of 1,000 unguided samples (guidance 1) from the training digits, in the
  64 dimensions of their pixels, beside that of the real held-out digits.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.data import digits, grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import (  # noqa: E402
    FeatureSpace,
    digits_judge,
    evaluate_frechet,
)
from diffusion_jax.training.drawing import draw  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.sampling import cycle_labels  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402

PIXELS = FeatureSpace("8x8 pixels", 64, pixel_range=(0.0, 1.0))


def pixels(levels: np.ndarray) -> np.ndarray:
    return levels.reshape(len(levels), -1) / 255.0


def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [n 8 8 1], labels [n]) of a split."""
    records = [digits(split)[i] for i in range(len(digits(split)))]
    return np.stack([r["image"] for r in records]), np.array([r["label"] for r in records])


def main(
    run_dir: tyro.conf.Positional[Path],
    out: Path = Path("report"),
    num: int = 1000,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 1,
) -> None:
    """Measures a run of configs/digits.py, or of another recipe of the digits.

    Args:
        run_dir: the run.
        out: folder of the report.
        num: samples for each figure.
        steps: of the recipe's sampler (default: the recipe's, or 25).
        guidance: of the samples that are read (default: the recipe's).
        seed: of the samples.
    """
    began = time.perf_counter()
    mesh = data_mesh()
    experiment = load_experiment(run_dir)
    params = load_params(experiment, run_dir, "ema", None, mesh)
    labels = cycle_labels(experiment, num)
    steps = steps or experiment.sample_steps or 25
    guidance = experiment.guidance if guidance is None else guidance

    def sampled(scale: float) -> np.ndarray:
        return draw(
            experiment, params, experiment.sampler, {"label": labels},
            steps=steps, guidance=scale, seed=seed, batch_size=250, mesh=mesh,
        )  # fmt: skip

    train, train_labels = arrays("train")
    test, test_labels = arrays("test")
    judge = digits_judge(train, train_labels)
    unguided = sampled(1.0)
    guided = unguided if guidance == 1.0 else sampled(guidance)

    def distance(images):
        return evaluate_frechet(pixels, PIXELS, images, train, reference="digits train")

    report = {
        "guided_read_as_label": judge.accuracy(guided, labels),
        "judge_on_real_test": judge.accuracy(test, test_labels),
        "frechet_samples": dataclasses.asdict(distance(unguided)),
        "frechet_as_many_samples_as_test": dataclasses.asdict(distance(unguided[: len(test)])),
        "frechet_real_test": dataclasses.asdict(distance(test)),
        "num": num, "steps": steps, "guidance": guidance, "seed": seed,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    save_png(out / "samples.png", grid(to_uint8(guided[:100]), columns=10, scale=4))

    print(f"\n{num} samples ({experiment.sampler}, {steps} steps, guidance {guidance:g}):")
    print(
        f"  read as their label          {report['guided_read_as_label']:.1%}"
        f"   (the judge reads {report['judge_on_real_test']:.1%} of the real held-out digits)"
    )
    print("Fréchet distance from the training digits, in 64 pixels:")
    print(f"  {num:5d} unguided samples       {distance(unguided).value:.4f}")
    print(f"  {len(test):5d} unguided samples       {distance(unguided[: len(test)]).value:.4f}")
    print(f"  {len(test):5d} real held-out digits   {distance(test).value:.4f}")
    print(f"Look at {out / 'samples.png'}: a column for each digit.")


if __name__ == "__main__":
    tyro.cli(main)
