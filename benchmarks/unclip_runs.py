"""unCLIP's runs, as the unCLIP benchmarks read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.systems import Prompts, Stage, Unclip, best_of
from diffusion_jax.systems.unclip import PRIOR, Prior
from diffusion_jax.training.contrastive import Contrastive, image_encoder
from diffusion_jax.training.drawing import in_batches
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.needs import check_pinned, pinned
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.stages import load_stage, text_reader


@dataclass(frozen=True)
class Clip:
    """The CLIP that a run was trained on.

    Attributes:
        run: its folder.
        task: its recipe.
        images: pictures [n h w c] -> z_i [n d].
        told: texts -> what the stages read of them.
    """

    run: Path
    task: Contrastive
    images: Callable
    told: Callable

    def texts(self, texts: list[str]) -> jax.Array:
        """z_t of texts [n d]."""
        return self.told(texts).embedding


def clip_of(run: Path, data_dir: Path | None = None) -> Clip:
    """The CLIP that a prior or a decoder was trained on, unchanged since."""
    check_pinned(run)
    (needed,) = pinned(run)
    clip_run = Path(needed["run"])
    task = load_clip_task(clip_run)
    params = load_params(task, clip_run)
    return Clip(clip_run, task, image_encoder(task, params), text_reader(task, params, data_dir))


def load_decoder(
    run: Path,
    *,
    steps: int,
    length: int,
    guidance: float | None = None,
    upsamplers: tuple[Path, ...] = (),
) -> Unclip:
    """A decoder, and upsamplers, without a prior; `length` is of a text, in tokens."""
    stage = load_stage(run, steps=steps, guidance=guidance)
    ups: list[Stage] = []
    height, width, channels = stage.shape
    for up in upsamplers:
        height, width = 2 * height, 2 * width
        ups.append(load_stage(up, steps=25, shape=(height, width, channels)))
    return Unclip(stage, length, upsamplers=tuple(ups))


_decode = jax.jit(Unclip.decode)
_best = jax.jit(best_of, static_argnums=4)


def decoded(
    unclip: Unclip,
    z: Any,
    tokens: Any = None,
    *,
    start: Any = None,
    seed: int,
    batch_size: int,
    desc: str | None = None,
) -> np.ndarray:
    """Pictures [n h w c] of embeddings (zeros for none), texts' tokens and the decoder's x_1."""
    key = jax.random.key(seed)

    def run(index: jax.Array) -> jax.Array:
        def taken(x: Any) -> Any:
            return None if x is None else jnp.take(jnp.asarray(x), index, axis=0, mode="clip")

        return _decode(unclip, key, taken(z), index, taken(tokens), taken(start))

    return in_batches(run, len(z), batch_size, desc=desc)


def from_prior(
    prior: Prior, told: Prompts, *, seed: int, count: int = 2, batch_size: int = 64
) -> np.ndarray:
    """z_i [n d] of texts, of `count` draws the closest to z_t."""
    key = jax.random.fold_in(jax.random.key(seed), PRIOR)

    def run(index: jax.Array) -> jax.Array:
        some = Prompts(*(jnp.take(x, index, axis=0, mode="clip") for x in told))
        return _best(key, prior, some, index, count)

    return in_batches(run, len(told.embedding), batch_size, desc="prior", unit="embedding")


def table(rows: Mapping[str, Mapping[str, float]], first: str) -> str:
    """Markdown, a row of numbers for each name."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{row[c]:.3g}" if c in row else "" for c in columns) + " |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)
