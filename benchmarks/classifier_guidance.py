"""Guidance by a classifier that knows noise:

    python benchmarks/classifier_guidance.py runs/fashion_mnist runs/fashion_mnist_classifier

The model is told no label (gamma 0); the classifier's gradient alone steers it. Prints and writes
classifier_guidance.json: how many samples a judge that never saw noise (`fashion_mnist_quality.py`
trains it) reads as the label, and their diversity, the root mean square difference between two
pictures of one label, pixels in [-1, 1]; for several scales, by eps-bar through DDIM and by the
mean shift of ancestral sampling. Draws one row for each.
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import diffusion_jax as dj  # noqa: E402
from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import load_classifier  # noqa: E402
from diffusion_jax.training.editing_cli import classified  # noqa: E402
from diffusion_jax.training.runs import load_experiment, load_params, load_task, restore_params  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402
from diffusion_jax.types import Condition  # noqa: E402


def main(
    run_dir: tyro.conf.Positional[Path],
    classifier_dir: tyro.conf.Positional[Path],
    num: int = 200,
    scales: tuple[float, ...] = (0.0, 1.0, 3.0),
    steps: int = 50,
    seed: int = 1,
    data_dir: Path | None = None,
    pictures: Path | None = None,
) -> None:
    """Measures classifier guidance.

    Args:
        run_dir: a run of configs/fashion_mnist.py, with its judge in report/.
        classifier_dir: a run of configs/fashion_mnist_classifier.py.
        num: samples of each row.
        scales: of the gradient.
        steps: of the samplers.
        seed: of the noise.
        data_dir: folder of prepared TFDS sets.
        pictures: folder of the pictures (default: the run's report).
    """
    experiment, mesh = load_experiment(run_dir), data_mesh(1)
    task = load_task(classifier_dir)
    weights = restore_params(task, classifier_dir, "ema", None, mesh)
    params = load_params(experiment, run_dir, "ema", None, mesh)
    judge = load_classifier(run_dir / "report" / "judge.npz")
    process, key = experiment.process, jax.random.key(seed)
    label = jnp.arange(num) % 10
    folder = pictures or run_dir / "report"
    rows, shown = [], []

    source = task.source("test", data_dir)
    records = [source[i] for i in range(1000)]
    real = jnp.asarray(np.stack([r["image"] for r in records]), jnp.float32) / 127.5 - 1
    truth = np.array([r["label"] for r in records])
    reads = jax.jit(lambda x, t: task.model.apply(weights.state, x, t, Condition()))
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        at = jnp.full(len(truth), t)
        noised = process.corrupt(real, jax.random.normal(key, real.shape), at)
        right = float(np.mean(np.argmax(reads(noised, at), axis=1) == truth))
        rows.append({"reads_test_pictures_at": t, "right": right})
        print(f"the classifier reads {right:.1%} of {len(truth)} test pictures at t = {t}")

    @jax.jit
    def eps_bar(scale, x, label):
        steered = classified(experiment, task, weights.state, scale)
        denoiser = steered.denoiser(params, {"label": label}, 0.0)
        return dj.sample(key, dj.DDIM(), process, denoiser, x, dj.trailing(steps))

    @jax.jit
    def shifted(scale, x, label):
        def logits(x, t):
            return task.model.apply(weights.state, x, t, Condition())

        log_p = jax.tree_util.Partial(dj.class_log_probability(logits, label))
        denoiser = experiment.denoiser(params, {"label": label}, 0.0)
        sampler = dj.MeanShift(dj.Ancestral(), log_p, scale)
        return dj.sample(key, sampler, process, denoiser, x, dj.trailing(steps))

    x = dj.draw_prior(key, process, (num, *experiment.image_shape))
    for name, sampled in (("eps-bar, DDIM", eps_bar), ("mean shift, ancestral", shifted)):
        for scale in scales:
            began = time.perf_counter()
            found = np.clip(np.asarray(sampled(scale, x, label)), -1, 1)
            by_label = found.reshape(-1, 10, *found.shape[1:])
            apart = by_label[0::2][: len(by_label) // 2] - by_label[1::2]
            row = {
                "form": name, "scale": scale, "read": judge.accuracy(found, np.asarray(label)),
                "diversity": float(np.sqrt(np.mean(apart**2))),
                "seconds": round(time.perf_counter() - began, 1),
            }  # fmt: skip
            rows.append(row)
            shown.append(to_uint8(found[:10]))
            print(
                f"{name}, scale {scale:g}: {row['read']:.1%} of {num} read as the label, "
                f"diversity {row['diversity']:.3f}, {row['seconds']} s", flush=True,
            )  # fmt: skip
    report = {"trained_steps": weights.step, "num": num, "steps": steps, "rows": rows}
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(folder / "classifier_guidance.json", text.encode())
    save_png(folder / "classifier_guidance.png", grid(np.concatenate(shown), columns=10, scale=2))
    print(f"wrote {folder}/classifier_guidance.json and .png")


if __name__ == "__main__":
    tyro.cli(main)
