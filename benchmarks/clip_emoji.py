"""What a CLIP of emoji knows of concepts it never saw: python benchmarks/clip_emoji.py RUN

Zero-shot classification among a hundred captions, retrieval both ways, and the same concept across
drawing styles, all on the test split, whose 78 concepts are in no style of the training split.
Beside chance there is a nearest neighbour in pixels: what the most similar training picture, or
the training pictures of the most similar texts, would have said.
"""

from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from clip_runs import Encoders, Split, described, load_clip_run, percent  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402

from diffusion_jax.data import emoji_texts, marks_apart  # noqa: E402
from diffusion_jax.evaluation.retrieval import across_groups, recall  # noqa: E402
from diffusion_jax.evaluation.zero_shot import zero_shot_accuracy  # noqa: E402

CAPTIONS = 100


def named(records: list[dict]) -> set[str]:
    """The words of the names."""
    return {word for r in records for word in marks_apart(r["caption"])}


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def text_embeddings(clip: Encoders, records: list[dict], kind: str) -> np.ndarray:
    """A unit row for each record: of its name, of name and keywords, or the mean of five texts."""
    if kind == "name":
        return np.asarray(clip.texts([r["caption"] for r in records]))
    if kind == "name and keywords":
        return np.asarray(clip.texts([described(r) for r in records]))
    each = np.stack([np.asarray(clip.texts(list(emoji_texts(r)))) for r in records])
    return unit(each.mean(1))


class PixelNeighbour:
    """Pictures and texts by way of the training split: pictures as pixels, texts as tf-idf.

    A picture is where its nearest training picture's texts are; a text is where the texts are.
    Both are unit rows, so that the same measures serve.
    """

    def __init__(self, train: Split):
        self._train = train
        texts = [described(r) for r in train.records]
        self._vectors = TfidfVectorizer().fit(texts)
        self._known = self._vectors.transform(texts)

    def images(self, pictures: np.ndarray) -> np.ndarray:
        nearest = squared(pictures, self._train.pictures).argmin(1)
        return unit(self._known[nearest].toarray())

    def texts(self, texts: list[str]) -> np.ndarray:
        """A text without a known word has length 0, and the first axis is as good as any."""
        rows = self._vectors.transform(texts).toarray()
        rows[~rows.any(1), 0] = 1.0
        return unit(rows)


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of pictures, [n m]."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T


def across_styles(rows: np.ndarray, test: Split) -> tuple[float, float]:
    """Top-1 of a concept among the pictures of another style, and chance; mean of twelve pairs."""
    pairs = across_groups(rows, test.concepts.tolist(), test.styles.tolist(), at=(1,)).values()
    mean = np.mean([(pair.found[1], pair.chance[1]) for pair in pairs], axis=0)
    return float(mean[0]), float(mean[1])


def main(run: tyro.conf.Positional[Path], data_dir: Path | None = None) -> None:
    """Prints the tables of docs/clip.md.

    Args:
        run: of a recipe such as configs/emoji64_clip.py.
        data_dir: folder of prepared TFDS sets.
    """
    clip = load_clip_run(run, data_dir)
    train, test = Split("train", data_dir), Split("test", data_dir)
    neighbour = PixelNeighbour(train)
    images, pixels = np.asarray(clip.images(test.pictures)), neighbour.images(test.pictures)

    concepts = np.unique(test.concepts)
    rest = np.random.default_rng(0).permutation(np.setdiff1d(train.concepts, concepts))
    shown = [*test.first_of(concepts), *train.first_of(rest[: CAPTIONS - len(concepts)])]
    right = np.searchsorted(concepts, test.concepts)
    print(f"{len(test.pictures)} test pictures of {len(concepts)} concepts;", end=" ")
    seen, asked = (named(split.records) for split in (train, test))
    print(f"{len(asked - seen)} of {len(asked)} words of their names are in no training name\n")
    print(f"| zero-shot among {len(shown)} captions | top 1 / 5, % |\n|---|---|")
    for kind in ("name", "name and keywords", "five texts, their mean"):
        result = zero_shot_accuracy(images, text_embeddings(clip, shown, kind), right, (1, 5))
        print(f"| {kind} | {percent(list(result.found.values()))} |")
    known = neighbour.texts([described(r) for r in shown])
    result = zero_shot_accuracy(pixels, known, right, (1, 5))
    print(f"| nearest neighbour in pixels | {percent(list(result.found.values()))} |")
    print(f"| chance | {percent(list(result.chance.values()))} |")

    matches = test.concepts[:, None] == concepts[None]
    texts = text_embeddings(clip, test.first_of(concepts), "name and keywords")
    known = neighbour.texts([described(r) for r in test.first_of(concepts)])
    print("\n| retrieval on the test split, R@1 / 5 / 10, % | picture to text | text to picture |")
    print("|---|---|---|")
    for name, (a, b) in {"CLIP": (images, texts), "nearest neighbour": (pixels, known)}.items():
        there, back = recall(a, b, matches), recall(b, a, matches.T)
        ways = " | ".join(percent(list(way.found.values())) for way in (there, back))
        print(f"| {name} | {ways} |")
    ways = " | ".join(percent(list(way.chance.values())) for way in (there, back))
    print(f"| chance | {ways} |")

    print("\n| the same concept in another style, top 1 | % |\n|---|---|")
    found, chance = across_styles(images, test)
    flat, _ = across_styles(unit(test.pictures.reshape(len(test.pictures), -1)), test)
    print(f"| CLIP | {percent([found])} |\n| cosine of pixels | {percent([flat])} |")
    print(f"| chance | {percent([chance])} |")


if __name__ == "__main__":
    tyro.cli(main)
