"""Weightings w(t) of the denoising loss, each one loss whatever the network predicts.

A weighting is a value, called as weighting(process, parameterization, t, x) -> w with the
rank of x: the weight of || y - (a x_0 + b noise) ||^2. With det = alpha b - sigma a, errors
are proportional, so a weight that a paper gives in its own terms becomes

    of the noise   w = w_noise (alpha / det)^2                                          (1)
    of x_0         w = w_x0 (sigma / det)^2                                             (2)

    simple         w_noise = 1
    elbo           w_noise = -lambda'(t) / 2,  lambda the log SNR                       (3)
    P2             w_noise = 1 / (k + SNR)^gamma                                        (4)
    min-SNR        w_noise = min(1, gamma / SNR),  w_x0 = min(SNR, gamma)               (5)
    EDM            w_x0 = SNR + 1 / sigma_data^2                                        (6)
    sigmoid        w_noise = sigmoid(bias - lambda) times that of elbo                  (7)

At the one time where (3) is infinite, sigma = 0, it is 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.parameterizations import Velocity
from diffusion_jax.processes import divide
from diffusion_jax.types import GaussianProcess, Parameterization, Time

Weighting = Callable[[GaussianProcess, Parameterization, Time, Array], Array]


def _scales_and_det(
    process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
) -> tuple[Array, Array, Array]:
    alpha, sigma = process.scales(t, x)
    a, b = parameterization.coefficients(process, t, x)
    return alpha, sigma, alpha * b - sigma * a


def constant(
    process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
) -> Array:
    """w = 1 for the network's own output, rank of x."""
    alpha, _ = process.scales(t, x)
    return jnp.ones_like(alpha)


def simple(
    process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
) -> Array:
    """w = (alpha / det)^2: L_simple of Ho et al. 2020, (14), for any parameterization."""
    alpha, _, det = _scales_and_det(process, parameterization, t, x)
    return divide(alpha, det) ** 2


def elbo(process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array) -> Array:
    """Equation (3): with t ~ U[0, 1] the loss is the diffusion term, in nats a dimension.

    -lambda'/2 = (alpha sigma' - sigma alpha') / (alpha sigma); one alpha cancels in (1).

    Source: Kingma et al. 2021 (arXiv:2107.00630), equation (17).
    """
    alpha, sigma, det = _scales_and_det(process, parameterization, t, x)
    alpha_rate, sigma_rate = Velocity().coefficients(process, t, x)
    rate = alpha * sigma_rate - sigma * alpha_rate
    return divide(divide(alpha, det) * rate, sigma * det)


@dataclass(frozen=True)
class P2:
    """Equation (4): less weight on the clean-up of low noise.

    Source: Choi et al. 2022 (arXiv:2204.00227), equation (8).
    """

    gamma: float = 1.0
    k: float = 1.0

    def __call__(
        self, process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
    ) -> Array:
        alpha, sigma, det = _scales_and_det(process, parameterization, t, x)
        share = sigma**2 / (self.k * sigma**2 + alpha**2)  # 1 / (k + SNR)
        tiny = jnp.finfo(share.dtype).tiny  # keeps the gradient finite
        return divide(alpha, det) ** 2 * jnp.maximum(share, tiny) ** self.gamma


@dataclass(frozen=True)
class MinSNR:
    """Equation (5): the weight of x_0's error, SNR for L_simple, stops at gamma.

    Source: Hang et al. 2023 (arXiv:2303.09556), section 3.4.
    """

    gamma: float = 5.0

    def __call__(
        self, process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
    ) -> Array:
        alpha, sigma, det = _scales_and_det(process, parameterization, t, x)
        low = jnp.minimum(alpha**2, self.gamma * sigma**2)
        return divide(low, det**2)


@dataclass(frozen=True)
class EDMWeighting:
    """Equation (6): 1 for what an `EDM` network predicts, at every noise level.

    Source: Karras et al. 2022 (arXiv:2206.00364), table 1.
    """

    sigma_data: float = 0.5

    def __call__(
        self, process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
    ) -> Array:
        alpha, sigma, det = _scales_and_det(process, parameterization, t, x)
        return divide(alpha**2 + (sigma / self.sigma_data) ** 2, det**2)


@dataclass(frozen=True)
class SigmoidWeighting:
    """Equation (7): the bound of data with noise added, a monotone weight of log SNR.

    Source: Kingma & Gao 2023 (arXiv:2303.00848), section 5.
    """

    bias: float = 2.0

    def __call__(
        self, process: GaussianProcess, parameterization: Parameterization, t: Time, x: Array
    ) -> Array:
        alpha, sigma = process.scales(t, x)
        # sigmoid(bias - log SNR), finite at both ends
        noisy = math.exp(self.bias) * sigma**2
        return elbo(process, parameterization, t, x) * noisy / (noisy + alpha**2)
