"""Diffusion models in JAX: processes, losses and samplers as pure functions.

    import diffusion_jax as dj

needs only jax, numpy and jaxtyping. Networks are in `diffusion_jax.models`, training in
`diffusion_jax.training`, data in `diffusion_jax.data`, judges in `diffusion_jax.evaluation`.
"""

from diffusion_jax.dct import dct, inverse_dct
from diffusion_jax.degradations import (
    FixedNoise,
    GaussianBlur,
    GaussianMask,
    Masking,
    Pixelate,
    Snow,
)
from diffusion_jax.denoisers import (
    clip,
    clip_x0_only,
    denoiser_from,
    precondition,
    table_time,
)
from diffusion_jax.guidance import classifier_free, classifier_free_fused, drop_condition
from diffusion_jax.losses import (
    absolute,
    after_corruption,
    another_picture,
    constant,
    denoising_loss,
    restoration_loss,
    simple,
)
from diffusion_jax.parameterizations import X0, Noise, Score, V, Velocity, target
from diffusion_jax.processes import Cold, Gaussian, posterior, transition
from diffusion_jax.samplers import (
    DDIM,
    Ancestral,
    ColdImproved,
    ColdNaive,
    Heat,
    Momentum,
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
from diffusion_jax.spectral import (
    ExponentialBlur,
    LessBlurred,
    Masked,
    SineBlur,
    Spectral,
    blurring,
    heat,
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
    "Cold",
    "ColdImproved",
    "ColdNaive",
    "Condition",
    "Cosine",
    "CosineBeta",
    "Denoiser",
    "Discrete",
    "ExponentialBlur",
    "FixedNoise",
    "Gaussian",
    "GaussianBlur",
    "GaussianMask",
    "Heat",
    "LessBlurred",
    "LinearBeta",
    "Masked",
    "Masking",
    "Model",
    "Momentum",
    "Noise",
    "Pixelate",
    "Prediction",
    "Rectified",
    "ScaledLinearBeta",
    "Score",
    "SineBlur",
    "Snow",
    "Spectral",
    "Stratified",
    "Uniform",
    "V",
    "Velocity",
    "absolute",
    "after_corruption",
    "another_picture",
    "blurring",
    "classifier_free",
    "classifier_free_fused",
    "clip",
    "clip_x0_only",
    "constant",
    "dct",
    "denoiser_from",
    "denoising_loss",
    "draw_prior",
    "drop_condition",
    "fixed_large",
    "fixed_small",
    "heat",
    "inverse_dct",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "posterior",
    "precondition",
    "restoration_loss",
    "sample",
    "simple",
    "table_time",
    "target",
    "trailing",
    "transition",
]
