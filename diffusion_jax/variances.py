"""Variances of the reverse step, between the posterior's and the transition's.

They differ by sigma_s^2 / sigma_t^2, and w lies at a fraction v of the way in the logarithm:

    log w = v log w_transition + (1 - v) log w_posterior
        w = w_transition (sigma_s^2 / sigma_t^2)^(1 - v)                                (1)

v = 0 is DDPM's `fixed_small` (beta-tilde), v = 1 its `fixed_large` (beta); in between, v is a
constant or what the network says of each pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide, transition
from diffusion_jax.types import GaussianProcess, Prediction, Scalar, Time

# (process, prediction, t, s) -> w with the rank of x
Variance = Callable[[GaussianProcess, Prediction, Time, Time], Array]


@partial(jax.tree_util.register_dataclass, data_fields=["v"], meta_fields=[])
@dataclass(frozen=True)
class LogInterpolated:
    """Equation (1) with a constant v.

    Attributes:
        v: from 0, the posterior's variance, to 1, the transition's. Traced.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), Algorithm 2, line 6, and their v of 0.3.
    """

    v: Scalar

    def __call__(self, process: GaussianProcess, prediction: Prediction, t: Time, s: Time) -> Array:
        """w, 0 where sigma_s = 0; with the rank of x."""
        return _interpolate(process, prediction.x0, t, s, self.v)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class LearnedRange:
    """Equation (1) with v = Prediction.variance, the network's, for each pixel.

    Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation (15).
    """

    def __call__(self, process: GaussianProcess, prediction: Prediction, t: Time, s: Time) -> Array:
        """w, 0 where sigma_s = 0; the shape of x.

        Raises:
            ValueError: the denoiser predicts no variance.
        """
        if prediction.variance is None:
            raise ValueError(
                "learned_range needs a denoiser that predicts its variance; this one's "
                "Prediction.variance is None. Use fixed_small, fixed_large or "
                "LogInterpolated(v), or a parameterization with a learned variance."
            )
        return _interpolate(process, prediction.x0, t, s, prediction.variance)


fixed_small = LogInterpolated(0.0)
fixed_large = LogInterpolated(1.0)
learned_range = LearnedRange()


def _interpolate(process, x, t, s, fraction):
    _, variance = transition(process, s, t, x)
    (_, sigma_t), (_, sigma_s) = process.scales(t, x), process.scales(s, x)
    share = divide(sigma_s**2, sigma_t**2)
    clean = share == 0
    return jnp.where(clean, 0.0, variance * jnp.where(clean, 1.0, share) ** (1 - fraction))
