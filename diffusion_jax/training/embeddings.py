"""A captioned source as a trained CLIP sees it: embeddings of its pictures and of their texts."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.data import Source, from_vectors
from diffusion_jax.data.files import write_atomically
from diffusion_jax.training.contrastive import Contrastive, image_encoder, token_encoder
from diffusion_jax.training.needs import identity
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.sharding import make_mesh
from diffusion_jax.types import Params


def load_clip_task(run_dir: Path) -> Contrastive:
    """The CLIP that a run folder trained.

    Raises:
        ValueError: it trained something else.
        FileNotFoundError: there is no such run.
    """
    task = load_task(run_dir)
    if not isinstance(task, Contrastive):
        raise ValueError(f"{run_dir} holds no CLIP; name a run of one, such as runs/emoji64_clip.")
    return task


class Embeddings(NamedTuple):
    """What a CLIP says of a captioned source; a row for each record, in their order.

    Attributes:
        images: z_i [n d], of length 1.
        texts: z_t of each text [n texts d], of length 1.
        tokens: of the texts [n texts length], int32.
    """

    images: np.ndarray
    texts: np.ndarray
    tokens: np.ndarray


def embeddings(run_dir: Path, split: str, data_dir: Path | None) -> Embeddings:
    """Those of a split of a CLIP run's own source, computed once and kept in the run folder.

    Of several processes each computes what it doesn't find; they write the same.

    Args:
        run_dir: of the CLIP.
        split: "train" or "test".
        data_dir: of the CLIP's source.

    Raises:
        ValueError: the run folder holds no CLIP.
        FileNotFoundError: there is none, or it has no checkpoint yet.
    """
    run_dir = Path(run_dir).resolve()
    task = load_clip_task(run_dir)
    of = f"{identity(run_dir)['digest']} {task.source(split, data_dir).name} {data_dir}"
    name = f"{split}_{hashlib.sha256(of.encode()).hexdigest()[:16]}.npz"
    return _embeddings(run_dir / "embeddings" / name, split, data_dir)


@functools.lru_cache(maxsize=4)
def _embeddings(file: Path, split: str, data_dir: Path | None) -> Embeddings:
    if file.is_file():
        with np.load(file, allow_pickle=False) as arrays:
            return Embeddings(**{name: arrays[name] for name in Embeddings._fields})
    run_dir = file.parent.parent
    task = load_clip_task(run_dir)
    # Each process by itself, on a device of its own: another one may have found the file.
    params = load_params(task, run_dir, mesh=make_mesh(devices=jax.local_devices()[:1]))
    found = embed(task, params, task.source(split, data_dir))
    stream = io.BytesIO()
    np.savez(stream, **found._asdict())
    try:
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, stream.getvalue())
    except OSError as error:
        print(f"warning: the embeddings weren't kept: {error}", flush=True)
    return found


def check_sizes(
    run_dir: Path, said: Embeddings, features: int, vocabulary: int, length: int
) -> None:
    """Raises ValueError unless a network for so many features, ids and tokens can read these."""
    most, size, found = int(said.tokens.max()) + 1, said.images.shape[1], said.tokens.shape[2]
    if size != features or most > vocabulary or found != length:
        raise ValueError(
            f"{run_dir} has embeddings of {size} features, texts of {found} tokens and ids up to "
            f"{most - 1}; the network is for {features} features, {length} tokens and "
            f"{vocabulary} ids."
        )


def embed(task: Contrastive, params: Params, source: Source, batch_size: int = 256) -> Embeddings:
    """The embeddings of a source, so many pictures at a time."""
    pictures, texts = image_encoder(task, params), token_encoder(task, params)
    parts = []
    for start in range(0, len(source), batch_size):
        records = [source[i] for i in range(start, min(start + batch_size, len(source)))]
        pixels = np.stack([r["image"] for r in records]) / np.float32(127.5) - 1
        tokens = np.stack([r["tokens"] for r in records])
        said = np.asarray(texts(tokens.reshape(-1, tokens.shape[-1])))
        said = said.reshape(*tokens.shape[:2], -1)
        parts.append(Embeddings(np.asarray(pictures(pixels)), said, tokens))
    return Embeddings(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def vectors(name: str, of: Embeddings, **more: np.ndarray) -> Source:
    """Embeddings as a source: `image` is sqrt(d) z_i, whose entries are of the size of 1.

    Its records have `text_embedding` [texts d] and `tokens` [texts length] too, and what is named.
    """
    scaled = of.images * of.images.shape[1] ** 0.5
    return from_vectors(name, scaled, {"text_embedding": of.texts, "tokens": of.tokens, **more})
