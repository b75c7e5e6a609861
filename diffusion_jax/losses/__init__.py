"""Losses: (params, extra, key, batch) -> (loss, (metrics, extra))."""

from diffusion_jax.losses.denoising import constant, denoising_loss, simple
from diffusion_jax.losses.restoration import (
    absolute,
    after_corruption,
    another_picture,
    restoration_loss,
)

__all__ = [
    "absolute",
    "after_corruption",
    "another_picture",
    "constant",
    "denoising_loss",
    "restoration_loss",
    "simple",
]
