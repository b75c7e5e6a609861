"""Systems: short compositions of denoisers, samplers and encoders."""

from diffusion_jax.systems.cascade import Stage, cascade
from diffusion_jax.systems.unclip import (
    CodeStage,
    Prompts,
    Unclip,
    best_of,
    interpolations,
    text_difference,
)

__all__ = [
    "CodeStage",
    "Prompts",
    "Stage",
    "Unclip",
    "best_of",
    "cascade",
    "interpolations",
    "text_difference",
]
