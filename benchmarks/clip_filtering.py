"""Filters of captioned pictures under a fixed budget: python benchmarks/clip_filtering.py WORK

A pool of emoji of which a quarter has another emoji's caption, and a quarter an unrelated picture
with the caption written on it. A CLIP that was trained on all of it scores the pairs; each rule
keeps half of them; a CLIP is trained anew on what was kept, with the same number of steps, and
measured on the test split, which is clean.

After Gadre et al. 2023 (DataComp, arXiv:2304.14108) and Maini et al. 2023 (T-MARS,
arXiv:2307.03132), in small.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()
from clip_runs import Split, percent  # noqa: E402

from diffusion_jax.data import (  # noqa: E402
    Source,
    captioned,
    emoji_texts,
    in_memory,
    joined,
    subset,
    tfds_source,
)
from diffusion_jax.data.curation import clip_filter, intersection, similarities  # noqa: E402
from diffusion_jax.data.lettering import write  # noqa: E402
from diffusion_jax.data.text_regions import StrokeDetector  # noqa: E402
from diffusion_jax.data.views import mapped  # noqa: E402
from diffusion_jax.evaluation.retrieval import retrieval  # noqa: E402
from diffusion_jax.training.contrastive import (  # noqa: E402
    Contrastive,
    image_encoder,
    text_encoder,
)
from diffusion_jax.training.loop import Options, train  # noqa: E402
from diffusion_jax.training.recipes import find_recipe, load_recipe  # noqa: E402

KINDS = ("fitting", "another's caption", "read, not seen")


def written(image: np.ndarray, text: str, seed: int) -> np.ndarray:
    """The picture with the text on a plate, somewhere."""
    rng = np.random.default_rng(seed)
    at = (int(rng.integers(1, 5)), int(rng.integers(1, 36)))
    return write(image, text, at=at, size=11, colour=(0, 0, 0), plate=(255, 255, 255)).picture


def make_pool(source: Source, wrong: float, read: float, seed: int) -> tuple[Source, np.ndarray]:
    """The source, of which so large shares have another record's picture, or that with the caption
    written on it; and of what kind each record is, [n], 0 to 2, of `KINDS`."""
    rng = np.random.default_rng(seed)
    n = len(source)
    order = rng.permutation(n)
    kind = np.zeros(n, int)
    kind[order[: round(wrong * n)]] = 1
    kind[order[round(wrong * n) : round((wrong + read) * n)]] = 2
    picture = np.arange(n)
    moved = np.flatnonzero(kind)
    picture[moved] = np.roll(rng.permutation(moved), 1)

    def shown(record: Mapping[str, Any]) -> dict[str, Any]:
        image = source[int(record["picture"])]["image"]
        if record["kind"] == 2:
            image = written(image, record["caption"], int(record["place"]))
        return {"image": image}

    return mapped(joined(source, picture=picture, kind=kind, place=np.arange(n)), shown), kind


def trained(task: Contrastive, source: Source, folder: Path) -> Any:
    """Averaged parameters after the task's steps on these pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(log_every=25, checkpoint_every=100, sample_every=0, keep=1)
    task = replace(task, source=lambda split, data_dir: source)
    return train(task, options, folder).ema


def measured(task: Contrastive, params: Any, test: Split, data_dir: Path | None) -> Mapping:
    """R@1, 5, 10 both ways on the test split."""
    images = np.asarray(image_encoder(task, params)(test.pictures))
    concepts = np.unique(test.concepts)
    said = [emoji_texts(r)[2] for r in test.first_of(concepts)]
    texts = np.asarray(text_encoder(task, params, data_dir)(said))
    return retrieval(images, texts, test.concepts[:, None] == concepts[None])._asdict()


def main(
    work: tyro.conf.Positional[Path],
    steps: int = 200,
    wrong: float = 0.25,
    read: float = 0.25,
    seed: int = 0,
    data_dir: Path | None = None,
) -> None:
    """Prints the table of docs/clip.md.

    Args:
        work: folder of the runs; what is there already goes on.
        steps: of each training.
        wrong: share of pairs with another's caption.
        read: share of pairs whose caption is on an unrelated picture.
        seed: of the pool.
        data_dir: folder of prepared TFDS sets.
    """
    task: Any = load_recipe(find_recipe("emoji64_clip"))(steps=steps)
    clean = tfds_source("emoji64", "train", data_dir, label="group")
    pool, kind = make_pool(clean, wrong, read, seed)
    told = captioned(pool, task.tokenizer(data_dir), emoji_texts, task.texts)
    source, test = in_memory(told), Split("test", data_dir)

    params = trained(task, source, work / "none")
    encoders = image_encoder(task, params), text_encoder(task, params, data_dir)
    scores = similarities(source, *encoders)
    covered = similarities(source, *encoders, detector=StrokeDetector())
    kept = {
        "none": np.arange(len(pool)),
        "similarity": clip_filter(scores, 0.5),
        "T-MARS": clip_filter(covered, 0.5),
        "both": intersection(clip_filter(scores, 0.5), clip_filter(covered, 0.5)),
        "what fits (known here alone)": np.flatnonzero(kind == 0),
    }
    print(
        f"\n{len(pool)} pairs, {steps} steps each; picture to text, text to picture: R@1 / 5 / 10"
    )
    print("| filter | pairs | " + " | ".join(f"{k}, %" for k in KINDS) + " | picture to text, % "
          "| text to picture, % |\n|---|---:|---:|---:|---:|---|---|")  # fmt: skip
    for name, indices in kept.items():
        if name != "none":
            folder = work / name.split()[0].lower()
            params = trained(task, in_memory(subset(told, indices)), folder)
        ways = measured(task, params, test, data_dir)
        shares = np.bincount(kind[indices], minlength=3) / len(indices)
        cells = [f"{100 * share:.0f}" for share in shares]
        cells += [percent(list(way.found.values())) for way in ways.values()]
        print(f"| {name} | {len(indices)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
