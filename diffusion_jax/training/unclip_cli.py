"""unCLIP by sample.py's flags: what a prior makes of prompts, and upsamplers of pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.image_conditioning import LowResolution
from diffusion_jax.systems.unclip import Prompts, best_of
from diffusion_jax.training import checkpoints
from diffusion_jax.training.contrastive import text_encoder
from diffusion_jax.training.drawing import draw
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import pinned
from diffusion_jax.training.runs import load_experiment, load_params
from diffusion_jax.training.stages import load_prior

_PRIOR = 2**32 - 5  # a stream of the key beside those of `samplers.loop` and `editing`


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
    key = jax.random.fold_in(jax.random.key(seed), _PRIOR)
    drawn = []
    with tqdm(total=num, desc="prior", unit="embedding", disable=None) as bar:
        for start in range(0, num, batch_size):
            index = np.arange(start, start + batch_size)
            rows = which[index % num]
            told = Prompts(jnp.asarray(tokens[rows]), jnp.asarray(said[rows]))
            drawn.append(np.asarray(best(key, stage, told, jnp.asarray(index))))
            bar.update(min(batch_size, num - start))
    known = {"image_embedding": np.concatenate(drawn)[:num], "tokens": tokens[which]}
    experiment.conditioning.check(known)
    return known


def check_upsamplers(runs: Sequence[Path], shape: tuple[int, ...]) -> None:
    """Raises, before any work, ValueError for a run that enlarges no pictures of this kind, and
    FileNotFoundError for one without a checkpoint."""
    for run in runs:
        task = load_experiment(run)
        if not checkpoints.steps(run / "checkpoints"):
            raise FileNotFoundError(f"--upsampler {run} has no checkpoint yet; train first.")
        if not isinstance(task.conditioning, LowResolution) or task.image_shape[2:] != shape[2:]:
            raise ValueError(
                f"--upsampler {run} enlarges no pictures of {shape[2]} channels, as "
                "configs/emoji_upsampler.py's do."
            )


def enlarged(
    run: Path, pictures: np.ndarray, number: int, *, seed: int, batch_size: int, mesh: Mesh
) -> np.ndarray:
    """What an upsampler makes of pictures [n h w c] in [-1, 1].

    Args:
        run: its folder; it may have been trained on patches of another size.
        pictures: of any size that it can halve.
        number: of the stage, from 1: its noise isn't that of the ones before.
        seed, batch_size, mesh: as of the other pictures.
    """
    experiment = load_experiment(run)
    conditioning: Any = experiment.conditioning
    height, width = (conditioning.factor * n for n in pictures.shape[1:3])
    experiment = replace(experiment, image_shape=(height, width, pictures.shape[3]))
    return draw(
        experiment,
        load_params(experiment, run, mesh=mesh),
        experiment.sampler,
        {"low": pictures},
        desc=f"{height}x{width}",
        steps=experiment.sample_steps or 25,
        guidance=1.0,
        seed=(seed + number * 0x9E3779B9) % 2**32,
        batch_size=batch_size,
        mesh=mesh,
    )
