"""Are the shapes what was asked for: python benchmarks/shapes_quality.py runs/shapes_captions

Draws what 1,000 held-out examples ask for, at each guidance, and reads every picture back with
the exact judge (`diffusion_jax.evaluation.judge_caption` and its siblings). Captions of the test
split are in no training example. Prints a table, and writes quality.json and samples.png (one
example a column, one guidance a row) to the run's report folder.

- captions: attributes obeyed (colours, shapes, sizes, relation, position, number of objects), whole
  captions obeyed, and those with one, two and three objects;
- layouts: mean IoU of the boxes asked for, boxes at IoU 0.5 or more, whole layouts;
- segmentation: pixels right, of all and of those that are foreground in map or picture;
- holes: pictures of which every object can be read, and known pixels that changed;
- small pictures: pixels of the enlarged picture's own size that agree, in colour.

Diversity is the root mean square difference between two pictures of the same request, pixels in
[-1, 1]; 0 is one picture for each. `--plot curve.png` draws fidelity, the first number of each row,
against it (needs the extra `plots`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.data import grid, parse_caption, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import (  # noqa: E402
    judge_caption,
    judge_layout,
    judge_segmentation,
    read_picture,
)
from diffusion_jax.training.drawing import draw  # noqa: E402
from diffusion_jax.training.runs import load_experiment, restore_params  # noqa: E402
from diffusion_jax.training.sampling import known_of  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402

Records = Sequence[Mapping[str, Any]]
Report = dict[str, float]


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def judge_captions(pictures: np.ndarray, records: Records, known: Mapping) -> Report:
    verdicts = [judge_caption(p, r["caption"]) for p, r in zip(pictures, records, strict=True)]
    objects = np.array([len(parse_caption(r["caption"]).things) for r in records])
    whole = np.array([v.whole for v in verdicts])
    missed = [kind for v in verdicts for kind in v.missed]
    return {
        "attributes": sum(v.obeyed for v in verdicts) / sum(v.asked for v in verdicts),
        "whole": mean(whole),
        **{f"whole_{n}": mean(whole[objects == n]) for n in (1, 2, 3)},
        **{f"missed_{kind}": missed.count(kind) / len(records) for kind in sorted(set(missed))},
    }


def judge_layouts(pictures: np.ndarray, records: Records, known: Mapping) -> Report:
    verdicts = [
        judge_layout(p, r["boxes"], r["box_label"]) for p, r in zip(pictures, records, strict=True)
    ]
    overlaps = np.concatenate([v.overlaps for v in verdicts])
    return {
        "mean_iou": mean(overlaps),
        "boxes_at_half": mean(overlaps >= 0.5),
        "whole": mean([v.whole for v in verdicts]),
    }


def judge_maps(pictures: np.ndarray, records: Records, known: Mapping) -> Report:
    verdicts = [
        judge_segmentation(p, r["segmentation"]) for p, r in zip(pictures, records, strict=True)
    ]
    return {
        "pixels": mean([v.everywhere for v in verdicts]),
        "foreground": mean([v.foreground for v in verdicts]),
    }


def judge_holes(pictures: np.ndarray, records: Records, known: Mapping) -> Report:
    real = to_uint8(known["image"])
    kept = np.broadcast_to(known["mask"] == 1, real.shape)
    return {
        "all_objects_readable": mean([read_picture(p).unreadable == 0 for p in pictures]),
        "known_pixels_changed": mean(to_uint8(pictures)[kept] != real[kept]),
    }


def judge_enlarged(pictures: np.ndarray, records: Records, known: Mapping) -> Report:
    """Pixels count as the nearest corner of the colours' cube, which is the palette."""
    real = np.stack([r["image"] for r in records]) >= 128
    found = to_uint8(pictures) >= 128
    doubled = np.asarray(known["low"]).repeat(2, axis=1).repeat(2, axis=2) >= 0
    return {
        "pixels": mean((found == real).all(-1)),
        "whole": mean((found == real).all((1, 2, 3))),
        "pixels_of_nearest_neighbour": mean((doubled == real).all(-1)),
        "all_objects_readable": mean([read_picture(p).unreadable == 0 for p in pictures]),
    }


JUDGES: Mapping[str, Callable[[np.ndarray, Records, Mapping], Report]] = {
    "tokens": judge_captions,
    "boxes": judge_layouts,
    "segmentation": judge_maps,
    "mask": judge_holes,
    "low": judge_enlarged,
}


def plot_curve(report: Mapping[str, Any], out: Path) -> None:
    """Fidelity against diversity: a point, with its name, for each guidance."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = report["guidance"]
    fidelity = next(iter(next(iter(found.values()))))
    points = [(row["diversity"], row[fidelity]) for row in found.values()]
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.plot(*zip(*points, strict=True), "o-", markersize=4)
    for gamma, point in zip(found, points, strict=True):
        axes.annotate(gamma, point, xytext=(4, 4), textcoords="offset points")
    axes.set_xlabel("diversity: root mean square difference of two pictures of one request")
    axes.set_ylabel(f"{fidelity.replace('_', ' ')}, by the judge")
    axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main(
    run_dir: tyro.conf.Positional[Path],
    num: int = 1000,
    guidance: tuple[float, ...] = (1.0, 2.0, 4.0),
    steps: int = 12,
    pairs: int = 200,
    step: int | None = None,
    seed: int = 1,
    batch_size: int = 100,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Measures a run of a recipe of the shapes.

    Args:
        run_dir: the run.
        num: held-out examples.
        guidance: gammas.
        steps: of the recipe's sampler.
        pairs: of examples drawn twice, for diversity.
        step: the checkpoint's (default: the newest).
        seed: of the noise.
        batch_size: pictures at a time.
        out: folder of the report (default: the run's report).
        plot: a picture of fidelity against diversity, if one is wanted.
    """
    experiment = load_experiment(run_dir)
    source, mesh = experiment.source("test", None), data_mesh(1)
    restored = restore_params(experiment, run_dir, "ema", step, mesh)
    records = [source[i % len(source)] for i in range(num)]
    known = known_of(experiment, records)
    judge = next(judge for name, judge in JUDGES.items() if name in known)

    def drawn(gamma: float, count: int, seed: int) -> np.ndarray:
        told = {name: value[:count] for name, value in known.items()}
        return draw(
            experiment, restored.state, experiment.sampler, told, steps=steps, guidance=gamma,
            seed=seed, batch_size=batch_size, mesh=mesh,
        )  # fmt: skip

    report: dict[str, Any] = {
        "run": str(run_dir), "trained_steps": restored.step, "num": num, "steps": steps,
        "sampler": repr(experiment.sampler), "guidance": {},
    }  # fmt: skip
    rows = [np.stack([r["image"] for r in records[:12]])]
    for gamma in guidance if experiment.conditioning.drop else (1.0,):
        began = time.perf_counter()
        pictures = drawn(gamma, num, seed)
        seconds = time.perf_counter() - began
        again = drawn(gamma, pairs, seed + 1)
        found = judge(pictures, records, known)
        found["diversity"] = float(np.sqrt(np.mean((pictures[:pairs] - again) ** 2)))
        report["guidance"][f"{gamma:g}"] = found | {"seconds": round(seconds, 1)}
        rows.append(to_uint8(pictures[:12]))
        print(f"guidance {gamma:g} ({seconds:.0f} s): " + table_row(found), flush=True)

    folder = out or run_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "quality.json", (json.dumps(report, indent=2) + "\n").encode())
    if plot:
        plot_curve(report, plot)
    scale = max(1, 64 // experiment.image_shape[0])
    save_png(folder / "samples.png", grid(np.concatenate(rows), columns=12, scale=scale))
    print(f"wrote {folder / 'quality.json'} and {folder / 'samples.png'}")


def table_row(found: Report) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


if __name__ == "__main__":
    tyro.cli(main)
