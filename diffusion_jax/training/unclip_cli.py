"""unCLIP by sample.py's flags: what a prior makes of prompts, and upsamplers of pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.image_conditioning import LowResolution
from diffusion_jax.systems.cascade import stage_key, tell_key
from diffusion_jax.systems.unclip import PRIOR, Prompts, best_of
from diffusion_jax.training import checkpoints
from diffusion_jax.training.contrastive import text_encoder
from diffusion_jax.training.drawing import draw, in_batches
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import pinned
from diffusion_jax.training.runs import load_experiment, load_params
from diffusion_jax.training.stages import load_prior


def embedded_prompts(
    experiment: Experiment,
    decoder: Path,
    prior: Path,
    prompts: Sequence[str],
    num: int,
    *,
    steps: int | None,
    guidance: float | None,
    seed: int,
    batch_size: int,
    data_dir: Path | None,
) -> Known:
    """What the decoder is told of `num` pictures, prompts in turn: z_i from the prior, and tokens.

    Raises:
        ValueError: no prompts, a run that is no prior, or a model that reads no embeddings or
            those of another CLIP.
    """
    if not prompts:
        raise ValueError("--prior needs a text: --prompt.")
    missing = {"image_embedding", "tokens"} - set(experiment.conditioning.features)
    if missing:
        raise ValueError(
            "--prior is for a decoder of embeddings, such as configs/emoji_decoder.py trains; "
            "this model reads none."
        )
    stage = load_prior(prior, steps=steps, guidance=guidance, data_dir=data_dir)
    needed = pinned(prior)
    if not needed or needed != pinned(decoder):
        raise ValueError(
            f"{prior} and {decoder} weren't trained on the same CLIP, so what one draws the other "
            "can't read."
        )
    clip_run = Path(needed[0]["run"])
    clip = load_clip_task(clip_run)
    tokenizer = clip.tokenizer(data_dir)
    tokens = np.stack([tokenizer.encode(text) for text in prompts])
    said = np.asarray(text_encoder(clip, load_params(clip, clip_run), data_dir)(prompts))
    which = np.arange(num) % len(prompts)

    best = jax.jit(best_of)
    key = jax.random.fold_in(jax.random.key(seed), PRIOR)

    def drawn(index: jax.Array) -> jax.Array:
        rows = which[np.asarray(index) % num]
        told = Prompts(jnp.asarray(tokens[rows]), jnp.asarray(said[rows]))
        return best(key, stage, told, index)

    z = in_batches(drawn, num, batch_size, desc="prior", unit="embedding")
    known = {"image_embedding": z, "tokens": tokens[which]}
    experiment.conditioning.check(known)
    return known


def check_upsamplers(runs: Sequence[Path], shape: tuple[int, ...], level: float) -> None:
    """Raises, before any work, ValueError for a run that enlarges no pictures of this kind, or
    never saw so much noise on them, and FileNotFoundError for one without a checkpoint."""
    for run in runs:
        task = load_experiment(run)
        if not checkpoints.steps(run / "checkpoints"):
            raise FileNotFoundError(f"--upsampler {run} has no checkpoint yet; train first.")
        if not isinstance(task.conditioning, LowResolution) or task.image_shape[2:] != shape[2:]:
            raise ValueError(
                f"--upsampler {run} enlarges no pictures of {shape[2]} channels, as "
                "configs/emoji_upsampler.py's do."
            )
        if not 0 <= level <= task.conditioning.noise:
            raise ValueError(
                f"--augment is {level:g}; {run} was trained with noise from 0 to "
                f"{task.conditioning.noise:g}."
            )


def enlarged(
    run: Path,
    pictures: np.ndarray,
    number: int,
    *,
    level: float,
    seed: int,
    batch_size: int,
    mesh: Mesh,
) -> np.ndarray:
    """What an upsampler makes of pictures [n h w c] in [-1, 1].

    Args:
        run: its folder; it may have been trained on patches of another size.
        pictures: of any size that it can halve.
        number: of the stage, from 1: its noise isn't that of the ones before.
        level: of the noise that the pictures get first, and that is told.
        seed, batch_size, mesh: as of the other pictures.
    """
    experiment = load_experiment(run)
    conditioning: Any = experiment.conditioning
    height, width = (conditioning.factor * n for n in pictures.shape[1:3])
    experiment = replace(experiment, image_shape=(height, width, pictures.shape[3]))
    key, index = stage_key(jax.random.key(seed), number), jnp.arange(len(pictures))
    levels = jnp.full(len(pictures), level)
    known = conditioning.augment(tell_key(key), index, jnp.asarray(pictures), levels)
    return draw(
        experiment,
        load_params(experiment, run, mesh=mesh),
        experiment.sampler,
        {name: np.asarray(value) for name, value in known.items()},
        desc=f"{height}x{width}",
        steps=experiment.sample_steps or 25,
        guidance=1.0,
        seed=seed,
        stage=number,
        batch_size=batch_size,
        mesh=mesh,
    )
