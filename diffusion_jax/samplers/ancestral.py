"""Ancestral sampling: x_s drawn from the reverse Gaussian of DDPM.

    x_s = m(x_t, x0) + sqrt(w) z,   m the mean of q(x_s | x_t, x_0)                     (1)

w is a rule of `variances`; none adds noise in a step that ends at sigma_s = 0.

With `fixed_small` it is DDIM(eta=1), and the Euler ancestral sampler of k-diffusion: its sigma_up,
times alpha_s, is sqrt(w_posterior), and its sigma_down what DDIM leaves to the noise.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import posterior
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, GaussianProcess, Time
from diffusion_jax.variances import Variance, fixed_small


@partial(jax.tree_util.register_dataclass, data_fields=["variance"], meta_fields=[])
@dataclass(frozen=True)
class Ancestral:
    """DDPM's sampler, equation (1).

    Attributes:
        variance: the reverse variance, (process, prediction, t, s) -> w, as a pytree: such as
            `fixed_large` or `LogInterpolated(0.3)`, or a function inside `jax.tree_util.Partial`.

    Source: Ho et al. 2020 (arXiv:2006.11239), Algorithm 2 and section 3.2.
    """

    variance: Variance = fixed_small
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def law(
        self, x: Array, t: Time, s: Time, denoiser: Denoiser, process: GaussianProcess
    ) -> tuple[Array, Array]:
        """m and w of equation (1): m with the shape of x, w with its rank."""
        prediction = denoiser(x, t)
        mean, _ = posterior(process, x, prediction.x0, t, s)
        _, sigma_s = process.scales(s, x)
        return mean, jnp.where(sigma_s == 0, 0.0, self.variance(process, prediction, t, s))

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        mean, variance = self.law(x, t, s, denoiser, process)
        return mean + safe_sqrt(variance) * noise(0), state
