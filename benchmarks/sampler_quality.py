"""Quality against evaluations: python benchmarks/sampler_quality.py runs/fashion_mnist

For five samplers, one of them on two grids, and 5, 10, 20 and 50 evaluations of the network,
draws samples without guidance and measures their Fréchet distance from all training images, in
the 64 features of the judge of fashion_mnist_quality.py. Prints a table, and writes the numbers
beside the run's report and the plot to docs/sampler_quality.png. Samples are kept (and shared
with fashion_mnist_quality.py), so that an interrupted run goes on.

Heun's method takes two evaluations a step and one in its last: it gets 3, 5, 10 and 25 steps,
which are 5, 9, 19 and 49 evaluations. Needs the extra `plots` (matplotlib).
"""

import dataclasses
import functools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
from fashion_mnist_quality import arrays, trained_judge  # noqa: E402

import diffusion_jax as dj  # noqa: E402
from diffusion_jax.data import to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import evaluate_frechet  # noqa: E402
from diffusion_jax.training import checkpoints  # noqa: E402
from diffusion_jax.training.drawing import draw  # noqa: E402
from diffusion_jax.training.experiment import Experiment, Grid  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.sampling import cycle_labels  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402
from diffusion_jax.types import Sampler  # noqa: E402


class Row(NamedTuple):
    """A line of the plot.

    Attributes:
        name: in the legend.
        sampler: the sampler.
        karras: whether on Karras's grid of noise levels; else on the recipe's, even in t.
        steps: evaluations -> (steps, the evaluations that they really take).
    """

    name: str
    sampler: Sampler
    karras: bool = False
    steps: Callable[[int], tuple[int, int]] = lambda n: (n, n)


def two_a_step(evaluations: int) -> tuple[int, int]:
    """Heun's steps of two evaluations, the last of one, in at most so many."""
    steps = (evaluations + 1) // 2
    return steps, 2 * steps - 1


ROWS = {
    "ancestral": Row("ancestral, even t", dj.Ancestral()),
    "ddim": Row("DDIM, even t", dj.DDIM()),
    "dpm_solver": Row("DPM-Solver++ 2M, even t", dj.DPMSolverPP(2)),
    "unipc": Row("UniPC-2, even t", dj.UniPC(2)),
    "dpm_solver_karras": Row("DPM-Solver++ 2M, Karras", dj.DPMSolverPP(2), karras=True),
    "edm_heun": Row("EDM Heun, Karras", dj.Churn(), karras=True, steps=two_a_step),
}


def plot(report: dict, out: Path) -> None:
    """Distance against evaluations, both in logarithms, a line a sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, (name, line) in enumerate(report["lines"].items()):
        points = [(p["evaluations"], p["frechet"]) for p in line]
        style = "--" if "Karras" in name else "-"
        axes.plot(*zip(*points, strict=True), "o" + style, color=f"C{i}", label=name, markersize=4)
    axes.axhline(report["real"], color="0.6", linewidth=1, label="real test images")
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the network")
    axes.set(ylabel="Fréchet distance, 64 features", xticks=[5, 10, 20, 50])
    axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main(
    run_dir: tyro.conf.Positional[Path],
    report_dir: Path | None = None,
    out: Path = Path("docs/sampler_quality.png"),
    data_dir: Path | None = None,
    num: int = 1000,
    evaluations: tuple[int, ...] = (5, 10, 20, 50),
    only: tuple[str, ...] = tuple(ROWS),
    judge_epochs: int = 8,
    seed: int = 1,
) -> None:
    """Measures a run of configs/fashion_mnist.py.

    Args:
        run_dir: the run.
        report_dir: folder of the judge, the samples and the numbers (default: report in the run).
        out: the plot.
        data_dir: folder of prepared TFDS sets.
        num: samples for each point.
        evaluations: of the network, for each sample.
        only: lines to draw; all by default.
        judge_epochs: the judge's training, where there is none yet.
        seed: of the samples.
    """
    import matplotlib  # noqa: F401  an extra, asked for before any work

    unknown = sorted(set(only) - ROWS.keys())
    if unknown:
        raise SystemExit(f"--only {unknown[0]} is no line; there are {', '.join(ROWS)}.")
    folder = report_dir or run_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    train, train_labels = arrays("train", data_dir)
    test, _ = arrays("test", data_dir)
    judge = trained_judge(folder / "judge.npz", train, train_labels, judge_epochs)
    space = judge.feature_space("fashion_mnist judge")

    def distance(images) -> float:
        return evaluate_frechet(
            judge.features, space, images, train, reference="fashion_mnist train"
        ).value

    mesh = data_mesh()
    experiment = load_experiment(run_dir)
    params = load_params(experiment, run_dir, "ema", None, mesh)
    trained = checkpoints.steps(run_dir / "checkpoints")[-1]
    shuffled = np.random.default_rng(0).permutation(len(test))[:num]
    report: dict = {
        "real": distance(test[shuffled]),
        "samples": num,
        "trained_steps": trained,
        "features": str(space),
        "machine": f"{platform.processor() or platform.machine()}, {jax.devices()[0].platform}",
        "lines": {},
    }
    print(f"{'real test images':26s} {report['real']:8.2f}", flush=True)

    def sampled(name: str, row: Row, steps: int) -> np.ndarray:
        path = folder / f"{name}{steps}_n{num}_g1_seed{seed}_at{trained}.npz"
        if not path.exists():
            pictures = draw(
                on_grid(experiment, row.karras), params, row.sampler,
                {"label": cycle_labels(experiment, num)}, steps=steps, guidance=1.0, seed=seed,
                batch_size=50, mesh=mesh,
            )  # fmt: skip
            np.savez(path, pictures=to_uint8(pictures))
        with np.load(path, allow_pickle=False) as file:
            return file["pictures"]

    for name in only:
        row = ROWS[name]
        line = report["lines"].setdefault(row.name, [])
        for n in evaluations:
            steps, really = row.steps(n)
            began = time.perf_counter()
            value = distance(sampled(name, row, steps))
            line.append({"evaluations": really, "steps": steps, "frechet": value})
            seconds = time.perf_counter() - began
            print(f"{row.name:26s} {really:4d} evaluations {value:8.2f}   {seconds:5.0f} s")
            text = json.dumps(report, indent=2) + "\n"
            write_atomically(folder / "sampler_quality.json", text.encode())
    plot(report, out)
    print(f"wrote {out}")


def on_grid(experiment: Experiment, karras: bool) -> Experiment:
    """The experiment with the Karras grid, or as it is."""
    grid: Grid = functools.partial(dj.karras, process=experiment.process)
    return dataclasses.replace(experiment, grid=grid) if karras else experiment


if __name__ == "__main__":
    tyro.cli(main)
