"""A linear probe on a CLIP of emoji against the same network trained supervised, under shift.

    python benchmarks/clip_robustness.py runs/emoji64_clip --supervised runs/emoji64_groups

Both name the nine groups of emoji. The probe's features and the supervised network's labels come
from the styles that the latter was trained on; the test is on concepts that neither saw, in those
styles, in the style that was left out, with noise, and blurred.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
from clip_runs import Split, load_clip_run, percent  # noqa: E402

from diffusion_jax.data import EMOJI_STYLES  # noqa: E402
from diffusion_jax.evaluation.probe import linear_probe  # noqa: E402
from diffusion_jax.evaluation.robustness import blur, noise, robustness  # noqa: E402
from diffusion_jax.training.recipes import Record  # noqa: E402
from diffusion_jax.training.runs import load_params, load_task  # noqa: E402
from diffusion_jax.training.supervised import Supervised  # noqa: E402

STRENGTHS = {"noise": (0.0, 0.1, 0.2, 0.4, 0.8), "blur": (0.0, 0.5, 1.0, 2.0, 4.0)}
Logits = Callable[[np.ndarray], np.ndarray]


def supervised_network(run: Path) -> Logits:
    """pictures -> logits of a run of configs/emoji64_groups.py."""
    task = load_task(run)
    if not isinstance(task, Supervised):
        raise SystemExit(f"{run} holds no supervised network.")
    params = load_params(task, run)
    network = jax.jit(task.logits)
    return lambda pictures: np.concatenate(
        [np.asarray(network(params, part)) for part in np.array_split(pictures, 5)]
    )


def accuracy(logits: Logits, labels: np.ndarray, pictures: np.ndarray) -> float:
    """How often the largest logit is the label's."""
    return float(np.mean(np.asarray(logits(pictures)).argmax(1) == labels))


def main(
    run: tyro.conf.Positional[Path],
    supervised: Path,
    data_dir: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Prints the table of docs/clip.md.

    Args:
        run: of configs/emoji64_clip.py.
        supervised: a run of configs/emoji64_groups.py.
        data_dir: folder of prepared TFDS sets.
        plot: where the curves go, a PNG.
    """
    seen = tuple(Record.load(supervised).arguments["styles"])
    clip = load_clip_run(run, data_dir)
    train, test = Split("train", data_dir), Split("test", data_dir)
    known = train.of_styles(seen)
    probe = linear_probe(np.asarray(clip.images(train.pictures[known])), train.groups[known])
    networks: dict[str, Logits] = {
        "CLIP, linear probe": lambda pictures: np.asarray(probe(clip.images(pictures))),
        "supervised": supervised_network(supervised),
    }
    inside = test.of_styles(seen)
    outside = test.of_styles(tuple(s for s in EMOJI_STYLES if s not in seen))
    shifts = {"noise": noise(), "blur": blur}

    share = np.bincount(train.groups[known]).max() / len(known)
    print(f"largest group {percent([share])} % of what was learned from; {', '.join(seen)}\n")
    print("| accuracy, % | seen styles | unseen style | noise " + " / ".join(
        f"{s:g}" for s in STRENGTHS["noise"]) + " | blur " + " / ".join(
        f"{s:g}" for s in STRENGTHS["blur"]) + " |\n|---|---|---|---|---|")  # fmt: skip
    curves = {}
    for name, logits in networks.items():
        told = functools.partial(accuracy, logits, test.groups[inside])
        curves[name] = robustness(told, test.pictures[inside], shifts, STRENGTHS)
        styles = [accuracy(logits, test.groups[of], test.pictures[of]) for of in (inside, outside)]
        cells = [percent([s]) for s in styles]
        cells += [percent(list(curves[name][shift].values())) for shift in shifts]
        print(f"| {name} | {' | '.join(cells)} |")
    if plot is not None:
        draw(curves, plot)


def draw(curves: dict, path: Path) -> None:
    """A panel for each shift."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for shift, axis in zip(STRENGTHS, axes, strict=True):
        for name, found in curves.items():
            axis.plot(
                list(found[shift]), [100 * v for v in found[shift].values()], "o-", label=name
            )
        axis.set(xlabel=f"{shift}, standard deviation", ylim=(0, 100))
    axes[0].set_ylabel("accuracy, %")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
