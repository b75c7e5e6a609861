"""Systems: short compositions of denoisers, samplers and encoders."""

from diffusion_jax.systems.cascade import Stage, cascade
from diffusion_jax.systems.codes import CodePictures
from diffusion_jax.systems.latent import Codec, LatentDiffusion
from diffusion_jax.systems.probes import ablation, attacked, reconstructions, relations
from diffusion_jax.systems.unclip import (
    CodeStage,
    Prompts,
    Unclip,
    best_of,
    interpolations,
    text_difference,
)

__all__ = [
    "CodePictures",
    "CodeStage",
    "Codec",
    "LatentDiffusion",
    "Prompts",
    "Stage",
    "Unclip",
    "ablation",
    "attacked",
    "best_of",
    "cascade",
    "interpolations",
    "reconstructions",
    "relations",
    "text_difference",
]
