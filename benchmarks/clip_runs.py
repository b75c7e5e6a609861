"""Emoji and a CLIP of them, as the CLIP benchmarks read them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.data import EMOJI_STYLES, emoji_texts, tfds_source
from diffusion_jax.training.contrastive import Contrastive, image_encoder, text_encoder
from diffusion_jax.training.runs import load_params, load_task


class Split:
    """A split's pictures, and the records without them.

    Attributes:
        pictures: [n 64 64 3], float32 in [-1, 1].
        records: as of the source.
        concepts: [n], which emoji it is.
        styles: [n], indices of `EMOJI_STYLES`.
        groups: [n], labels.
    """

    def __init__(self, split: str, data_dir: Path | None):
        source = tfds_source("emoji64", split, data_dir, label="group")
        records = [source[i] for i in range(len(source))]
        self.pictures = np.stack([r.pop("image") for r in records]) / np.float32(127.5) - 1
        self.records = records
        self.concepts = np.array([r["hexcode"] for r in records])
        self.styles = np.array([r["style"] for r in records])
        self.groups = np.array([r["label"] for r in records])

    def first_of(self, concepts: Sequence[str]) -> list[dict]:
        """A record of each of these concepts."""
        places = {c: i for i, c in reversed(list(enumerate(self.concepts)))}
        return [self.records[places[c]] for c in concepts]

    def of_styles(self, styles: Sequence[str]) -> np.ndarray:
        """Indices of the pictures of these styles."""
        return np.flatnonzero(np.isin(self.styles, [EMOJI_STYLES.index(s) for s in styles]))


class Encoders(NamedTuple):
    """A trained CLIP's two encoders, both to unit rows."""

    images: Callable
    texts: Callable


def load_clip_run(run: Path, data_dir: Path | None = None) -> Encoders:
    """The encoders of a run folder, averaged parameters."""
    task = load_task(run)
    if not isinstance(task, Contrastive):
        raise SystemExit(f"{run} holds no CLIP.")
    params = load_params(task, run)
    return Encoders(image_encoder(task, params), text_encoder(task, params, data_dir))


def described(record: dict) -> str:
    """A name and what else is said of it, without the style."""
    return emoji_texts(record)[2]


def percent(values: Sequence[float]) -> str:
    """Of shares: "1.0 / 5.0"."""
    return " / ".join(f"{100 * value:.1f}" for value in values)
