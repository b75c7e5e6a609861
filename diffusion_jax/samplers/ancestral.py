"""Ancestral sampling: x_s drawn from the reverse Gaussian of DDPM.

    x_s = m(x_t, x0) + sqrt(w) z,   m the mean of q(x_s | x_t, x_0)                     (1)

The variance w lies between that of the posterior (beta-tilde) and that of the transition
(beta), at a fraction v of the way in the logarithm. They differ by sigma_s^2 / sigma_t^2:

    log w = v log w_transition + (1 - v) log w_posterior
        w = w_transition (sigma_s^2 / sigma_t^2)^(1 - v)                                (2)

v = 0 is DDPM's `fixed_small`, v = 1 its `fixed_large`; in between, v is a constant or what the
network says of each pixel. None adds noise in a step that ends at sigma_s = 0.

With v = 0 it is DDIM(eta=1), and the Euler ancestral sampler of k-diffusion: its sigma_up,
times alpha_s, is sqrt(w_posterior), and its sigma_down what DDIM leaves to the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide, posterior, transition
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, GaussianProcess, Prediction, Scalar, Time

Variance = Callable[[GaussianProcess, Prediction, Time, Time], Array]


@partial(jax.tree_util.register_dataclass, data_fields=["v"], meta_fields=[])
@dataclass(frozen=True)
class LogInterpolated:
    """Equation (2) with a constant v.

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
    """Equation (2) with v = Prediction.variance, the network's, for each pixel.

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


@partial(jax.tree_util.register_dataclass, data_fields=["variance"], meta_fields=[])
@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler, equation (1).

    Attributes:
        variance: the reverse variance, (process, prediction, t, s) -> w, as a pytree: one of
            the above, or a function inside `jax.tree_util.Partial`.

    Source: Ho et al. 2020 (arXiv:2006.11239), Algorithm 2 and section 3.2.
    """

    variance: Variance = fixed_small
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        prediction = denoiser(x, t)
        mean, _ = posterior(process, x, prediction.x0, t, s)
        _, sigma_s = process.scales(s, x)
        variance = jnp.where(sigma_s == 0, 0.0, self.variance(process, prediction, t, s))
        return mean + safe_sqrt(variance) * noise(0), state
