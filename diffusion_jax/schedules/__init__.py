"""Schedules: alpha(t) and sigma(t) of x_t = alpha(t) x_0 + sigma(t) noise, t in [0, 1].

Beta tables are in `tables`, closed forms in `continuous`, VDM's trained one in `learned`.
Everywhere alpha(0) = 1 and sigma(0) = 0 exactly, and

    log SNR       lambda(t) = 2 (log alpha(t) - log sigma(t))

falls with t. A schedule is a frozen dataclass of numbers: it prints, compares and hashes by
value, so jit takes it as a static argument (a learned one closes over its parameters). It
computes in float32, or in float64 when t is.
"""

from diffusion_jax.schedules.base import log_snr, safe_sqrt
from diffusion_jax.schedules.continuous import (
    VE,
    Cosine,
    KarrasVE,
    LinearVP,
    Rectified,
    Sigmoid,
    SubVP,
)
from diffusion_jax.schedules.learned import Learned, init_learned
from diffusion_jax.schedules.tables import (
    BetaTable,
    CosineBeta,
    LinearBeta,
    ScaledLinearBeta,
    Sqrt,
    ZeroTerminalSNR,
)

__all__ = [
    "VE",
    "BetaTable",
    "Cosine",
    "CosineBeta",
    "KarrasVE",
    "Learned",
    "LinearBeta",
    "LinearVP",
    "Rectified",
    "ScaledLinearBeta",
    "Sigmoid",
    "Sqrt",
    "SubVP",
    "ZeroTerminalSNR",
    "init_learned",
    "log_snr",
    "safe_sqrt",
]
