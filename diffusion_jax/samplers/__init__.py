"""Samplers: each moves x from t to s; `sample` is the loop."""

from diffusion_jax.samplers.ancestral import (
    Ancestral,
    LearnedRange,
    LogInterpolated,
    fixed_large,
    fixed_small,
    learned_range,
)
from diffusion_jax.samplers.consistency import Consistency
from diffusion_jax.samplers.ddim import DDIM
from diffusion_jax.samplers.edm import Churn
from diffusion_jax.samplers.euler_maruyama import EulerMaruyama
from diffusion_jax.samplers.heun import Heun
from diffusion_jax.samplers.langevin import ConstantRate, Langevin, SignalToNoise
from diffusion_jax.samplers.loop import draw_prior, sample
from diffusion_jax.samplers.predictor_corrector import PredictorCorrector

__all__ = [
    "DDIM",
    "Ancestral",
    "Churn",
    "Consistency",
    "ConstantRate",
    "EulerMaruyama",
    "Heun",
    "Langevin",
    "LearnedRange",
    "LogInterpolated",
    "PredictorCorrector",
    "SignalToNoise",
    "draw_prior",
    "fixed_large",
    "fixed_small",
    "learned_range",
    "sample",
]
