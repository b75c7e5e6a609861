"""Diffusion models in JAX: processes, losses and samplers as pure functions.

    import diffusion_jax as dj

needs only jax, numpy and jaxtyping. Networks are in `diffusion_jax.models`, training in
`diffusion_jax.training`, data in `diffusion_jax.data`, judges in `diffusion_jax.evaluation`.
"""

from diffusion_jax.denoisers import (
    clip,
    clip_x0_only,
    denoiser_from,
    precondition,
    table_time,
)
from diffusion_jax.guidance import classifier_free, classifier_free_fused, drop_condition
from diffusion_jax.losses import constant, denoising_loss, simple
from diffusion_jax.parameterizations import X0, Noise, Score, V, Velocity, target
from diffusion_jax.processes import Gaussian, posterior, transition
from diffusion_jax.samplers import (
    DDIM,
    Ancestral,
    Churn,
    Consistency,
    ConstantRate,
    EulerMaruyama,
    Heun,
    Langevin,
    LogInterpolated,
    PredictorCorrector,
    SignalToNoise,
    draw_prior,
    fixed_large,
    fixed_small,
    learned_range,
    sample,
)
from diffusion_jax.schedules import (
    Cosine,
    CosineBeta,
    LinearBeta,
    Rectified,
    ScaledLinearBeta,
    log_snr,
)
from diffusion_jax.sde import diffusion, drift, probability_flow, reverse_drift
from diffusion_jax.timesteps import (
    Discrete,
    Stratified,
    Uniform,
    karras,
    leading,
    linspace,
    trailing,
)
from diffusion_jax.types import Condition, Denoiser, Model, Prediction

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "X0",
    "Ancestral",
    "Churn",
    "Condition",
    "Consistency",
    "ConstantRate",
    "Cosine",
    "CosineBeta",
    "Denoiser",
    "Discrete",
    "EulerMaruyama",
    "Gaussian",
    "Heun",
    "Langevin",
    "LinearBeta",
    "LogInterpolated",
    "Model",
    "Noise",
    "Prediction",
    "PredictorCorrector",
    "Rectified",
    "ScaledLinearBeta",
    "Score",
    "SignalToNoise",
    "Stratified",
    "Uniform",
    "V",
    "Velocity",
    "classifier_free",
    "classifier_free_fused",
    "clip",
    "clip_x0_only",
    "constant",
    "denoiser_from",
    "denoising_loss",
    "diffusion",
    "draw_prior",
    "drift",
    "drop_condition",
    "fixed_large",
    "fixed_small",
    "karras",
    "leading",
    "learned_range",
    "linspace",
    "log_snr",
    "posterior",
    "precondition",
    "probability_flow",
    "reverse_drift",
    "sample",
    "simple",
    "table_time",
    "target",
    "trailing",
    "transition",
]
