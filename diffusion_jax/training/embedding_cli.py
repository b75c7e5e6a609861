"""What is done with pictures' embeddings, by sample.py's flags, with unCLIP's decoder.

Each begins with what makes up a picture here: its CLIP embedding z_i, and the x_1 from which DDIM
leads the decoder back to it.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm import tqdm

from diffusion_jax.data.images import read_png
from diffusion_jax.models.image_conditioning import shrink
from diffusion_jax.samplers import DDIM
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.systems.unclip import interpolations, text_difference
from diffusion_jax.training.contrastive import Contrastive, image_encoder, text_encoder
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.known_cli import in_range
from diffusion_jax.training.needs import check_pinned, pinned
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.stages import stage_of
from diffusion_jax.types import Params

FURTHEST = 0.5  # of a text difference: the paper goes to between a quarter and a half


@dataclasses.dataclass(frozen=True)
class Turned:
    """Pictures whose embedding is turned, for unCLIP's decoder."""

    variations: Path | None = None
    """PNG of which to draw variations: what its embedding says stays"""
    interpolate: tuple[Path, Path] | None = None
    """two PNGs, and what lies between them, in --num pictures"""
    edit: Path | None = None
    """PNG that turns from what --from says to what --to says, in --num pictures"""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """text that describes --edit's picture"""
    to: str | None = None
    """text of what it becomes"""

    def asked(self) -> bool:
        """Whether any of them is given.

        Raises:
            ValueError: more than one is, or texts that don't go together.
        """
        given = [n for n in ("variations", "interpolate", "edit") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"--{given[0]} and --{given[1]} were both given; name one of them.")
        texts = bool(self.source), bool(self.to)
        if any(texts) and self.edit is None:
            raise ValueError("--from and --to belong to --edit.")
        if self.edit is not None and not all(texts):
            raise ValueError("--edit needs two texts: --from and --to.")
        return bool(given)


class Latents(NamedTuple):
    """What the decoder makes a picture of: z_i [n d] of length 1, and x_1 [n h w c]."""

    z: jax.Array
    x1: jax.Array


def turned(
    turn: Turned,
    experiment: Experiment,
    run_dir: Path,
    params: Params,
    num: int,
    *,
    steps: int,
    seed: int,
    batch_size: int,
    data_dir: Path | None,
) -> np.ndarray:
    """The pictures [num h w c] that the flags ask for, without guidance.

    Raises:
        ValueError: the run is no decoder of embeddings, or a picture isn't of its CLIP's size.
    """
    needed = pinned(run_dir)
    if "image_embedding" not in experiment.conditioning.features or not needed:
        raise ValueError(
            f"{run_dir} reads no embeddings; --variations, --interpolate and --edit are for a "
            "decoder, such as configs/emoji_decoder.py trains."
        )
    check_pinned(run_dir)
    clip_run = Path(needed[0]["run"])
    clip = load_clip_task(clip_run)
    clip_params = load_params(clip, clip_run)
    stage = dataclasses.replace(
        stage_of(experiment, params, steps=steps, guidance=1.0), sampler=DDIM()
    )

    def inside(path: Path, flag: str) -> Latents:
        return latents(stage, clip, clip_params, read_png(path, clip.image_shape, what=flag))

    if turn.variations is not None:
        one = inside(turn.variations, "--variations")
        stage = dataclasses.replace(stage, sampler=DDIM(1.0))
        between = Latents(*(jnp.repeat(x, num, axis=0) for x in one))
    elif turn.interpolate is not None:
        ends = [inside(path, "--interpolate") for path in turn.interpolate]
        z, x1 = (jnp.concatenate(x) for x in zip(*ends, strict=True))
        between = Latents(*interpolations(z, x1, jnp.linspace(0.0, 1.0, num)))
    else:
        assert turn.edit is not None
        one = Latents(*(jnp.repeat(x, num, axis=0) for x in inside(turn.edit, "--edit")))
        said = text_encoder(clip, clip_params, data_dir)([turn.source, turn.to])
        before, after = (jnp.repeat(z[None], num, axis=0) for z in said)
        weights = jnp.linspace(0.0, FURTHEST, num)
        between = one._replace(z=text_difference(one.z, before, after, weights))
    return decoded(stage, clip.length, between, seed=seed, batch_size=batch_size)


def latents(stage: Stage, clip: Contrastive, params: Params, picture: np.ndarray) -> Latents:
    """A picture's embedding, and its x_1 by DDIM's inversion.

    Raises:
        ValueError: the CLIP's pictures aren't a multiple of the decoder's in size.
    """
    factor, rest = divmod(picture.shape[0], stage.shape[0])
    if rest or picture.shape[1] != factor * stage.shape[1]:
        raise ValueError(
            f"the CLIP's pictures of {picture.shape[0]}x{picture.shape[1]} can't be shrunk to the "
            f"decoder's {stage.shape[0]}x{stage.shape[1]}."
        )
    pixels = in_range(picture)[None]
    z = image_encoder(clip, params, batch_size=1)(pixels)
    known = {"image_embedding": z, "tokens": jnp.zeros((1, clip.length), jnp.int32)}
    small = shrink(jnp.asarray(pixels), factor)
    return Latents(z, jax.jit(Stage.invert)(stage, small, known))


def decoded(stage: Stage, length: int, of: Latents, *, seed: int, batch_size: int) -> np.ndarray:
    """What the decoder makes of them, without text, a batch at a time."""
    num, draw, key = len(of.z), jax.jit(Stage.draw), jax.random.key(seed)
    tokens = jnp.zeros((batch_size, length), jnp.int32)
    drawn = []
    with tqdm(total=num, unit="picture", disable=None, dynamic_ncols=True) as bar:
        for start in range(0, num, batch_size):
            index = jnp.arange(start, start + batch_size)
            z, x1 = (jnp.take(x, index, axis=0, mode="clip") for x in of)
            known = {"image_embedding": z, "tokens": tokens}
            pictures = np.asarray(draw(stage, key, known, index, x1))
            drawn.append(np.clip(pictures, -1.0, 1.0))
            bar.update(min(batch_size, num - start))
    return np.concatenate(drawn)[:num]
