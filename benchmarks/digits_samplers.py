"""Every sampler of sample.py on one run: python benchmarks/digits_samplers.py runs/digits

For each name that goes with the run's recipe, prints how many guided samples a support vector
machine, trained on the real digits, reads as their label, and the time of sampling (with its
compilation).
"""

import time
from pathlib import Path
from typing import get_args

import tyro
from digits_quality import arrays

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.evaluation import digits_judge  # noqa: E402
from diffusion_jax.training.drawing import draw  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.sampler_cli import SamplerName, choose_sampler  # noqa: E402
from diffusion_jax.training.sampling import cycle_labels  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402


def main(
    run_dir: tyro.conf.Positional[Path], num: int = 500, steps: int = 50, seed: int = 1
) -> None:
    """Measures a run of a recipe of the digits.

    Args:
        run_dir: the run.
        num: samples for each sampler.
        steps: of each sampler (1 for adaptive).
        seed: of the samples.
    """
    mesh = data_mesh()
    experiment = load_experiment(run_dir)
    params = load_params(experiment, run_dir, "ema", None, mesh)
    labels = cycle_labels(experiment, num)
    judge = digits_judge(*arrays("train"))
    for name in get_args(SamplerName)[1:]:
        try:
            sampler = choose_sampler(experiment, name, {})
        except ValueError as error:
            print(f"{name:20s} {error}")
            continue
        began = time.perf_counter()
        pictures = draw(
            experiment, params, sampler, {"label": labels},
            steps=1 if name == "adaptive" else steps,
            guidance=experiment.guidance, seed=seed, batch_size=250, mesh=mesh,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        read = judge.accuracy(pictures, labels)
        print(f"{name:20s} {read:6.1%} of {num} read as their label   {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
