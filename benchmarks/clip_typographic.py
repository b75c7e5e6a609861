"""The typographic attack: python benchmarks/clip_typographic.py RUN...

Another concept's name is written on each test picture. How often is the picture still called by
its own name, and how often by the written one, among the names of the test split? Beside it the
same plate with letters in disorder, which covers as much and says nothing.

After Goh et al. 2021, Multimodal neurons in artificial neural networks, and Radford et al. 2021.
"""

from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()
from clip_runs import Split, load_clip_run, percent  # noqa: E402

from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.lettering import write  # noqa: E402
from diffusion_jax.evaluation.zero_shot import zero_shot_predictions  # noqa: E402


def attacked(pictures: np.ndarray, texts: list[str]) -> np.ndarray:
    """The pictures, [-1, 1], with a text on a white plate each."""
    levels = to_uint8(pictures)
    plates = [
        write(p, t, at=(2, 26), size=11, colour=(0, 0, 0), plate=(255, 255, 255)).picture
        for p, t in zip(levels, texts, strict=True)
    ]
    return np.stack(plates) / np.float32(127.5) - 1


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    seed: int = 0,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> None:
    """Prints the table of docs/clip.md.

    Args:
        runs: of recipes such as configs/emoji64_clip.py.
        seed: of which name is written on which picture.
        data_dir: folder of prepared TFDS sets.
        out: a PNG of attacked pictures, of the data set's: to look at.
    """
    test, rng = Split("test", data_dir), np.random.default_rng(seed)
    concepts = np.unique(test.concepts)
    names = [r["caption"] for r in test.first_of(concepts)]
    own = np.searchsorted(concepts, test.concepts)
    other = (own + rng.integers(1, len(names), len(own))) % len(names)
    disorder = ["".join(rng.permutation(list(names[o]))) for o in other]
    shown = {
        "clean": test.pictures,
        "another's name": attacked(test.pictures, [names[o] for o in other]),
        "letters in disorder": attacked(test.pictures, disorder),
    }
    if out is not None:
        save_png(out, grid(to_uint8(shown["another's name"][:32]), columns=8))
    print(f"{len(own)} pictures, {len(names)} names, chance {100 / len(names):.1f} %\n")
    print(
        "| run | written | called by its own name, % | by the written one, % |\n|---|---|---:|---:|"
    )
    for run in runs:
        clip = load_clip_run(run, data_dir)
        classes = np.asarray(clip.texts(names))
        for written, pictures in shown.items():
            images = np.asarray(clip.images(pictures))
            called = zero_shot_predictions(images, classes)[:, 0]
            shares = [percent([np.mean(called == wanted)]) for wanted in (own, other)]
            print(f"| {run.name} | {written} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
