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
from diffusion_jax.likelihood import (
    bits_per_dimension,
    continuous_bound,
    dequantise,
    estimated_bound,
    flow_log_density,
    variational_bound,
)
from diffusion_jax.losses import constant, denoising_loss, simple
from diffusion_jax.parameterizations import X0, Noise, Score, V, Velocity, target
from diffusion_jax.processes import Gaussian, posterior, transition
from diffusion_jax.samplers import (
    DDIM,
    Ancestral,
    draw_prior,
    fixed_large,
    fixed_small,
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
    "Condition",
    "Cosine",
    "CosineBeta",
    "Denoiser",
    "Discrete",
    "Gaussian",
    "LinearBeta",
    "Model",
    "Noise",
    "Prediction",
    "Rectified",
    "ScaledLinearBeta",
    "Score",
    "Stratified",
    "Uniform",
    "V",
    "Velocity",
    "bits_per_dimension",
    "classifier_free",
    "classifier_free_fused",
    "clip",
    "clip_x0_only",
    "constant",
    "continuous_bound",
    "denoiser_from",
    "denoising_loss",
    "dequantise",
    "draw_prior",
    "drop_condition",
    "estimated_bound",
    "fixed_large",
    "fixed_small",
    "flow_log_density",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "posterior",
    "precondition",
    "sample",
    "simple",
    "table_time",
    "target",
    "trailing",
    "transition",
    "variational_bound",
]
