"""What is done with pictures' embeddings, by sample.py's flags, with unCLIP's decoder.

Each begins with what makes up a picture here: its CLIP embedding z_i, and the x_1 from which DDIM
leads the decoder back to it.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_jax.data.images import read_png
from diffusion_jax.models.image_conditioning import shrink
from diffusion_jax.samplers import DDIM
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.systems.unclip import Unclip, interpolations, text_difference
from diffusion_jax.training.contrastive import image_encoder
from diffusion_jax.training.drawing import in_batches
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.known_cli import in_range
from diffusion_jax.training.needs import check_pinned, pinned
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.stages import stage_of, text_reader
from diffusion_jax.types import Params

FURTHEST = 0.5  # of a text difference: the paper goes to between a quarter and a half


@dataclasses.dataclass(frozen=True)
class Turned:
    """Pictures whose embedding is turned, for unCLIP's decoder."""

    variations: Path | None = None
    """PNG of which to draw variations: what its embedding says stays"""
    interpolate: tuple[Path, Path] | None = None
    """two PNGs, and what lies between them, in --num pictures"""
    fixed_noise: bool = False
    """--interpolate embeddings alone, with the first picture's noise"""
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
        if self.fixed_noise and self.interpolate is None:
            raise ValueError("--fixed-noise belongs to --interpolate.")
        return bool(given)


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
    check_pinned(run_dir, experiment.needs)
    if turn.variations is None and num < 2:
        raise ValueError("--interpolate and --edit go from one picture to another: --num is 1.")
    clip_run = Path(needed[0]["run"])
    clip = load_clip_task(clip_run)
    clip_params = load_params(clip, clip_run)
    stage = dataclasses.replace(
        stage_of(experiment, params, steps=steps, guidance=1.0), sampler=DDIM()
    )
    unclip, key = Unclip(stage, clip.length), jax.random.key(seed)
    embed = image_encoder(clip, clip_params, batch_size=1)

    def read(path: Path, flag: str) -> tuple[jax.Array, jax.Array]:
        """A picture of the decoder's size [1 h w c], and its embedding."""
        pixels = in_range(read_png(path, clip.image_shape, what=flag))[None]
        return shrunk_to(pixels, stage.shape), embed(pixels)

    if turn.variations is not None:
        one = read(turn.variations, "--variations")
        varied = jax.jit(Unclip.variations)
        return in_batches(lambda i: varied(unclip, key, *one, i), num, batch_size)

    def inverted(path: Path, flag: str) -> tuple[jax.Array, jax.Array]:
        """A picture's embedding, and the x_1 from which DDIM leads back to it."""
        small, z = read(path, flag)
        return z, invert(stage, small, unclip.known(z, None))

    invert, decode = jax.jit(Stage.invert), jax.jit(Unclip.decode)
    if turn.interpolate is not None:
        ends = [inverted(path, "--interpolate") for path in turn.interpolate]
        z, x1 = (jnp.concatenate(x) for x in zip(*ends, strict=True))
        if turn.fixed_noise:
            x1 = x1[jnp.array([0, 0])]
        z, x1 = interpolations(z, x1, jnp.linspace(0.0, 1.0, num))
    else:
        assert turn.edit is not None and turn.source is not None and turn.to is not None
        z, x1 = (jnp.repeat(x, num, axis=0) for x in inverted(turn.edit, "--edit"))
        said = text_reader(clip, clip_params, data_dir)([turn.source, turn.to]).embedding
        if np.allclose(said[0], said[1], atol=1e-6):
            raise ValueError("--from and --to say the same to this decoder's CLIP.")
        before, after = (jnp.repeat(z[None], num, axis=0) for z in said)
        z = text_difference(z, before, after, jnp.linspace(0.0, FURTHEST, num))

    def decoded(index: jax.Array) -> jax.Array:
        one, start = (jnp.take(x, index, axis=0, mode="clip") for x in (z, x1))
        return decode(unclip, key, one, index, start=start)

    return in_batches(decoded, num, batch_size)


def shrunk_to(pictures: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """Pictures [b h w c] at the decoder's size.

    Raises:
        ValueError: theirs isn't a multiple of it.
    """
    height, width = pictures.shape[1:3]
    factor, rest = divmod(height, shape[0])
    if rest or width != factor * shape[1]:
        raise ValueError(
            f"the CLIP's pictures of {height}x{width} can't be shrunk to the decoder's "
            f"{shape[0]}x{shape[1]}."
        )
    return shrink(jnp.asarray(pictures), factor)
