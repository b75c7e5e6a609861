"""Samplers: each moves x from t to s; `sample` is the loop."""

from diffusion_jax.samplers.ancestral import Ancestral
from diffusion_jax.samplers.cold import (
    ColdImproved,
    ColdNaive,
)
from diffusion_jax.samplers.consistency import (
    Consistency,
)
from diffusion_jax.samplers.ddim import (
    DDIM,
)
from diffusion_jax.samplers.deis import (
    DEIS,
)
from diffusion_jax.samplers.dpm_solver import (
    DPMSolverPP,
    published_third,
)
from diffusion_jax.samplers.dpm_solver_single import (
    DPMSolverPPSingle,
)
from diffusion_jax.samplers.edm import (
    Churn,
)
from diffusion_jax.samplers.euler import (
    Euler,
)
from diffusion_jax.samplers.euler_maruyama import (
    EulerMaruyama,
)
from diffusion_jax.samplers.exponential import (
    exact,
    midpoint,
)
from diffusion_jax.samplers.heat import (
    Heat,
)
from diffusion_jax.samplers.heun import (
    Heun,
)
from diffusion_jax.samplers.langevin import (
    ConstantRate,
    Langevin,
    SignalToNoise,
)
from diffusion_jax.samplers.loop import (
    draw_prior,
    sample,
)
from diffusion_jax.samplers.momentum import (
    Momentum,
)
from diffusion_jax.samplers.ode import (
    Adaptive,
)
from diffusion_jax.samplers.pndm import (
    PLMS,
    PNDM,
)
from diffusion_jax.samplers.predictor_corrector import (
    PredictorCorrector,
)
from diffusion_jax.samplers.unipc import (
    UniPC,
    bh1,
    bh2,
)

__all__ = [
    "DDIM",
    "DEIS",
    "PLMS",
    "PNDM",
    "Adaptive",
    "Ancestral",
    "Churn",
    "ColdImproved",
    "ColdNaive",
    "Consistency",
    "ConstantRate",
    "DPMSolverPP",
    "DPMSolverPPSingle",
    "Euler",
    "EulerMaruyama",
    "Heat",
    "Heun",
    "Langevin",
    "Momentum",
    "PredictorCorrector",
    "SignalToNoise",
    "UniPC",
    "bh1",
    "bh2",
    "draw_prior",
    "exact",
    "midpoint",
    "published_third",
    "sample",
]
