"""Stochastic differential equations: every Gaussian process as one, from its alpha and sigma.

x_t = alpha x_0 + sigma noise is the solution of a linear SDE, whose coefficients follow from
the schedule's derivatives (taken by `jax.jvp`, per frequency where alpha is):

    forward            dx = f x dt + g dw                                               (1)
                       f  = alpha' / alpha                                              (2)
                       g^2 = (sigma^2)' - 2 f sigma^2                                   (3)
    reverse            dx = (f x - g^2 grad log q(x)) dt + g dw,  t falling             (4)
    probability flow   dx = (f x - g^2/2 grad log q(x)) dt
                          = (alpha' x0 + sigma' noise) dt                               (5)

with grad log q(x) = -noise / sigma, where x0 and noise are a denoiser's. (2) and (3) make the
mean's ODE, alpha' = f alpha, and the variance's, (sigma^2)' = 2 f sigma^2 + g^2, hold. All of
(1), (4) and (5) have the same marginals q(x_t).

At alpha = 0 f and g are infinite: an SDE starts below t = 1 there. What is returned stays
finite (f = 0), so that a step which isn't taken there can be masked.

Source: Song et al. 2021 (arXiv:2011.13456), equations (5), (6) and (13), and appendix B.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import GaussianProcess, Prediction, Time

# Where beta(0) > 0, sigma starts with an infinite slope and g with a finite value.
_FIRST = 1e-6


def _rates(process: GaussianProcess, t: Time, x: Array) -> tuple[Array, Array, Array]:
    """f, sigma and s = sigma' - f sigma, each with the rank of x: g^2 = 2 sigma s."""
    t = jnp.maximum(t, _FIRST)
    values, slopes = jax.jvp(lambda t: process.scales(t, x), (t,), (jnp.ones_like(t),))
    (alpha, sigma), (alpha_slope, sigma_slope) = values, slopes
    f = divide(alpha_slope, alpha)
    return f, sigma, sigma_slope - f * sigma


def drift(process: GaussianProcess, t: Time, x: Array) -> Array:
    """f(t) x of the forward SDE, equation (1), the shape of x.

    Rectified flow's is x_t = (1 - t) x_0 + t noise, so f = -1 / (1 - t):

    >>> import diffusion_jax as dj
    >>> drift(dj.Gaussian(dj.Rectified()), jnp.array([0.5]), jnp.array([[1.0, -2.0]]))
    Array([[-2.,  4.]], dtype=float32)
    """
    f, _, _ = _rates(process, t, x)
    return f * x


def diffusion(process: GaussianProcess, t: Time, x: Array) -> Array:
    """g(t), equation (3), with the rank of x; of x only the rank (and frequencies) is read."""
    _, sigma, s = _rates(process, t, x)
    return safe_sqrt(2 * sigma * s)


def reverse_drift(process: GaussianProcess, t: Time, x: Array, prediction: Prediction) -> Array:
    """The drift of equation (4), the shape of x: t falls, so a step subtracts it.

    Args:
        process: gives alpha and sigma.
        t: times [b].
        x: x_t.
        prediction: the denoiser's answer at (x, t); its noise is -sigma grad log q(x).
    """
    f, _, s = _rates(process, t, x)
    return f * x + 2 * s * prediction.noise


def probability_flow(process: GaussianProcess, t: Time, x: Array, prediction: Prediction) -> Array:
    """dx/dt of equation (5), alpha' x0 + sigma' noise, the shape of x; finite at alpha = 0.

    Args: as `reverse_drift`.
    """
    t = jnp.maximum(t, _FIRST)
    _, slopes = jax.jvp(lambda t: process.scales(t, x), (t,), (jnp.ones_like(t),))
    alpha_slope, sigma_slope = slopes
    return alpha_slope * prediction.x0 + sigma_slope * prediction.noise
