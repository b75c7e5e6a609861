"""What a prior makes of prompts, for unCLIP's decoder, by sample.py's flags."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.unclip import PRIOR, Prompts, best_of
from diffusion_jax.training.contrastive import text_encoder
from diffusion_jax.training.drawing import in_batches
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import pinned
from diffusion_jax.training.runs import load_params
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
