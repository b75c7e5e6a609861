"""Diffusion models in JAX: processes, losses and samplers as pure functions.

    import diffusion_jax as dj

needs only jax, numpy and jaxtyping. Networks are in `diffusion_jax.models`, training in
`diffusion_jax.training`, data in `diffusion_jax.data`, judges in `diffusion_jax.evaluation`.
"""

from diffusion_jax.denoisers import (
    clip,
    clip_x0_only,
    denoiser_from,
    dynamic_threshold,
    precondition,
    table_time,
)
from diffusion_jax.guidance import classifier_free, classifier_free_fused, drop_condition
from diffusion_jax.losses import constant, denoising_loss, simple
from diffusion_jax.parameterizations import X0, Noise, Score, V, Velocity, target
from diffusion_jax.processes import Gaussian, posterior, transition
from diffusion_jax.samplers import (
    DDIM,
    DEIS,
    PLMS,
    PNDM,
    Adaptive,
    Ancestral,
    DPMSolverPP,
    DPMSolverPPSingle,
    Euler,
    Heun,
    UniPC,
    bh1,
    bh2,
    draw_prior,
    exact,
    fixed_large,
    fixed_small,
    midpoint,
    published_third,
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
    quadratic,
    trailing,
    uniform_log_snr,
)
from diffusion_jax.types import Condition, Denoiser, Model, Prediction

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "DEIS",
    "PLMS",
    "PNDM",
    "X0",
    "Adaptive",
    "Ancestral",
    "Condition",
    "Cosine",
    "CosineBeta",
    "DPMSolverPP",
    "DPMSolverPPSingle",
    "Denoiser",
    "Discrete",
    "Euler",
    "Gaussian",
    "Heun",
    "LinearBeta",
    "Model",
    "Noise",
    "Prediction",
    "Rectified",
    "ScaledLinearBeta",
    "Score",
    "Stratified",
    "UniPC",
    "Uniform",
    "V",
    "Velocity",
    "bh1",
    "bh2",
    "classifier_free",
    "classifier_free_fused",
    "clip",
    "clip_x0_only",
    "constant",
    "denoiser_from",
    "denoising_loss",
    "draw_prior",
    "drop_condition",
    "dynamic_threshold",
    "exact",
    "fixed_large",
    "fixed_small",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "midpoint",
    "posterior",
    "precondition",
    "published_third",
    "quadratic",
    "sample",
    "simple",
    "table_time",
    "target",
    "trailing",
    "transition",
    "uniform_log_snr",
]
