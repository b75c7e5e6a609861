"""What a prior makes of prompts, for unCLIP's decoder, by sample.py's flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.unclip import PRIOR, CodeStage, Prompts, best_of
from diffusion_jax.training.drawing import in_batches
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import pinned
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.stages import load_prior, text_reader


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
    how: Any = {"steps": steps, "guidance": guidance, "data_dir": data_dir}
    stage = load_prior(prior, decoder=decoder, **how)
    if steps is not None and isinstance(stage, CodeStage):
        raise ValueError(f"--prior-steps: {prior} draws code by code, and not in steps.")
    clip_run = Path(pinned(prior)[0]["run"])
    clip = load_clip_task(clip_run)
    read = text_reader(clip, load_params(clip, clip_run), data_dir)
    tokens, said = (np.asarray(x) for x in read(prompts))
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
