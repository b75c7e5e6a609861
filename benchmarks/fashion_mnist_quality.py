"""How good are the clothes: python benchmarks/fashion_mnist_quality.py runs/fashion_mnist

Trains a convolutional judge on the real training images (once: it is kept beside the report),
then prints, and writes to report.json:
- how many guided, class-conditional samples the judge reads as their label;
- the Fréchet distance, in the judge's 64 features and from all training images, of unguided
  samples (guidance 1) by DDIM in 10, 20, 50, 100 steps and by ancestral sampling in 1,000, each
  beside that of as many real test images.

Samples are kept too, so that a run that was interrupted goes on where it stood.
"""

import json
import platform
import time
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402

from diffusion_jax.data import flip, grid, save_png, tfds_in_memory, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import (  # noqa: E402
    Classifier,
    evaluate_frechet,
    load_classifier,
    save_classifier,
    train_classifier,
)
from diffusion_jax.samplers import DDIM, Ancestral  # noqa: E402
from diffusion_jax.training import checkpoints  # noqa: E402
from diffusion_jax.training.drawing import draw  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params  # noqa: E402
from diffusion_jax.training.sampling import cycle_labels  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402


def arrays(split: str, data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [n 28 28 1], labels [n]) of a split."""
    source = tfds_in_memory("fashion_mnist", split, data_dir)
    records = [source[i] for i in range(len(source))]
    return np.stack([r["image"] for r in records]), np.array([r["label"] for r in records])


def trained_judge(path: Path, images, labels, epochs: int) -> Classifier:
    """The judge of this file, trained first if there is none."""
    if path.exists():
        return load_classifier(path)
    print(f"training the judge on {len(images):,} real images")
    judge = train_classifier(
        jax.random.key(0), images, labels, classes=10, epochs=epochs, augment=flip(),
        report=lambda epoch, of, loss: print(f"epoch {epoch}/{of}  loss {loss:.4f}", flush=True),
    )  # fmt: skip
    save_classifier(path, judge)
    return judge


def main(
    run_dir: tyro.conf.Positional[Path],
    out: Path | None = None,
    data_dir: Path | None = None,
    judge_epochs: int = 8,
    guided: int = 1000,
    guidance: float = 2.0,
    seed: int = 1,
    only_judge: bool = False,
) -> None:
    """Measures a run of configs/fashion_mnist.py.

    Args:
        run_dir: the run.
        out: folder of the report and of what it is made from (default: report in the run).
        data_dir: folder of prepared TFDS sets.
        judge_epochs: the judge's training.
        guided: how many samples are read.
        guidance: of those.
        seed: of the samples.
        only_judge: train the judge and stop.
    """
    out = out or run_dir / "report"
    out.mkdir(parents=True, exist_ok=True)
    train, train_labels = arrays("train", data_dir)
    test, test_labels = arrays("test", data_dir)
    judge = trained_judge(out / "judge.npz", train, train_labels, judge_epochs)
    print(f"the judge reads {judge.accuracy(test, test_labels):.2%} of the real test images")
    if only_judge:
        return

    mesh = data_mesh()
    experiment = load_experiment(run_dir)
    params = load_params(experiment, run_dir, "ema", None, mesh)
    trained = checkpoints.steps(run_dir / "checkpoints")[-1]
    seconds = {}

    def sampled(name: str, sampler, num: int, steps: int, scale: float) -> np.ndarray:
        path = out / f"{name}_n{num}_g{scale:g}_seed{seed}_at{trained}.npz"
        labels = cycle_labels(experiment, num)
        if not path.exists():
            began = time.perf_counter()
            pictures = draw(
                experiment, params, sampler, {"label": labels},
                steps=steps, guidance=scale, seed=seed, batch_size=50, mesh=mesh,
            )  # fmt: skip
            seconds[name] = time.perf_counter() - began
            np.savez(path, pictures=to_uint8(pictures))
        with np.load(path, allow_pickle=False) as file:
            return file["pictures"]

    space = judge.feature_space("fashion_mnist judge")

    def distance(images) -> float:
        found = evaluate_frechet(
            judge.features, space, images, train, reference="fashion_mnist train"
        )
        return found.value

    pictures = sampled("guided_ddim50", DDIM(), guided, 50, guidance)
    read = judge.accuracy(pictures, cycle_labels(experiment, guided))
    save_png(out / "samples.png", grid(pictures[:60], columns=10, scale=2))
    print(f"{read:.1%} of {guided} samples (DDIM 50, guidance {guidance:g}) read as their label")

    report = {
        "trained_steps": trained,
        "guided_read_as_label": read,
        "guided_samples": guided,
        "guidance": guidance,
        "judge_on_real_test": judge.accuracy(test, test_labels),
        "features": str(space),
        "reference": f"{len(train)} of fashion_mnist train",
        "rows": [],
        "sampling_seconds": seconds,
        "machine": f"{platform.processor() or platform.machine()}, {jax.devices()[0].platform}",
    }
    shuffled = np.random.default_rng(0).permutation(len(test))  # the same test images each time
    runs = [(f"ddim{n}", DDIM(), 1000, n) for n in (10, 20, 50, 100)]
    runs += [("ancestral1000", Ancestral(), 200, 1000)]
    for name, sampler, num, steps in runs:
        made = distance(sampled(name, sampler, num, steps, 1.0))
        real = distance(test[shuffled[:num]])
        report["rows"].append({"sampler": name, "samples": num, "frechet": made, "real": real})
        write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
        print(f"{name:14s} {num:5d} samples  {made:8.4f}   real {real:8.4f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
