"""Likelihood: two variational bounds, the probability flow's density, bits per dimension.

All of them take pictures in pixels and answer in nats for each example.
"""

from diffusion_jax.likelihood.bound import Bound
from diffusion_jax.likelihood.continuous import continuous_bound, start_at
from diffusion_jax.likelihood.discrete import (
    estimated_bound,
    step_kl,
    variational_bound,
)
from diffusion_jax.likelihood.flow import (
    Exact,
    FlowDensity,
    Hutchinson,
    ascending,
    flow_log_density,
    flow_start,
    gaussian_probes,
    heun,
    rademacher,
    rk4,
)
from diffusion_jax.likelihood.pixels import (
    DEQUANTISATION_BITS,
    bits_per_dimension,
    dequantise,
    discretised_gaussian,
    gaussian_density,
)

__all__ = [
    "DEQUANTISATION_BITS",
    "Bound",
    "Exact",
    "FlowDensity",
    "Hutchinson",
    "ascending",
    "bits_per_dimension",
    "continuous_bound",
    "dequantise",
    "discretised_gaussian",
    "estimated_bound",
    "flow_log_density",
    "flow_start",
    "gaussian_density",
    "gaussian_probes",
    "heun",
    "rademacher",
    "rk4",
    "start_at",
    "step_kl",
    "variational_bound",
]
