"""Losses: (params, extra, key, batch) -> (loss, (metrics, extra))."""

from diffusion_jax.losses.denoising import constant, denoising_loss, simple

__all__ = ["constant", "denoising_loss", "simple"]
