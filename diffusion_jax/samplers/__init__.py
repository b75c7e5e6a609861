"""Samplers: each moves x from t to s; `sample` is the loop."""

from diffusion_jax.samplers.ancestral import Ancestral, fixed_large, fixed_small
from diffusion_jax.samplers.cold import ColdImproved, ColdNaive
from diffusion_jax.samplers.ddim import DDIM
from diffusion_jax.samplers.heat import Heat
from diffusion_jax.samplers.loop import draw_prior, sample
from diffusion_jax.samplers.momentum import Momentum

__all__ = [
    "DDIM",
    "Ancestral",
    "ColdImproved",
    "ColdNaive",
    "Heat",
    "Momentum",
    "draw_prior",
    "fixed_large",
    "fixed_small",
    "sample",
]
