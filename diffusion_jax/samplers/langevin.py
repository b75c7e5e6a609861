"""Langevin dynamics: at one noise level, until x is a sample of q(x_t).

    x <- x + c grad log q(x) + sqrt(2 c) z,    grad log q(x) = -noise / sigma           (1)

With c = rate sigma^2 nothing is divided by sigma, and the rate is a number without units:

    x <- x - rate sigma noise + sqrt(2 rate) sigma z                                    (2)

It has a bias of about rate / 2 in the variance where noise dominates, and needs some
multiple of (std of x / sigma)^2 / rate iterations to forget where x came from. Two rules:

    annealed      rate = a constant: eps / (2 sigma_L^2) in NCSN's letters, there 0.1   (3)
    corrector     rate = 2 (r ||z|| / ||noise||)^2                                      (4)

Sources: Song & Ermon 2019 (arXiv:1907.05600), Algorithm 1; Song et al. 2021
(arXiv:2011.13456), Algorithms 4 and 5 (without 5's factor 1 - beta_i, which is 1 in
continuous time).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import divide
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser, Scalar, Time

Rate = Callable[[Array, Array], Array]  # (predicted noise, z) -> rate, with the rank of both


@partial(jax.tree_util.register_dataclass, data_fields=["rate"], meta_fields=[])
@dataclass(frozen=True)
class ConstantRate:
    """Equation (3)."""

    rate: Scalar = 0.1

    def __call__(self, noise: Array, z: Array) -> Array:
        return jnp.asarray(self.rate, noise.dtype).reshape((1,) * noise.ndim)


@partial(jax.tree_util.register_dataclass, data_fields=["r"], meta_fields=[])
@dataclass(frozen=True)
class SignalToNoise:
    """Equation (4), with the norms of each example by itself.

    So an example doesn't depend on its batch. In few dimensions the norms fluctuate from one
    iteration to the next, which biases the result: use `ConstantRate` there.

    Attributes:
        r: signal-to-noise ratio of an iteration; the authors' is 0.16 for VE.
    """

    r: Scalar = 0.16

    def __call__(self, noise: Array, z: Array) -> Array:
        over = tuple(range(1, noise.ndim))
        z2, noise2 = (jnp.sum(v**2, over, keepdims=True) for v in (z, noise))
        return 2 * self.r**2 * divide(z2, noise2)


@partial(jax.tree_util.register_dataclass, data_fields=["rate"], meta_fields=["steps"])
@dataclass(frozen=True)
class Langevin:
    """Annealed Langevin dynamics as a sampler; `correct` makes it a corrector too.

    A step to s keeps x / alpha, as going to the next noise level does where alpha is 1, and
    takes `steps` iterations at s. A step to clean data is the denoiser's x0. Start the grid
    below 1, where alpha isn't 0 and x holds some signal.

    Attributes:
        rate: a rule (noise, z) -> rate, a pytree: `ConstantRate` or `SignalToNoise`.
        steps: iterations, and calls of the denoiser, at each noise level.
    """

    rate: Rate = ConstantRate()
    steps: int = 10

    @property
    def draws(self) -> int:
        return self.steps

    def init(self, x: Array, times: Array) -> tuple[()]:
        if self.steps < 1:
            raise ValueError(f"Langevin: steps is {self.steps}; it must be at least 1.")
        return ()

    def correct(self, x: Array, t: Time, denoiser: Denoiser, process, noise) -> Array:
        """`steps` iterations of equation (2) at t, which leave q(x_t) as it is."""
        _, sigma = process.scales(t, x)

        def iterate(j, x):
            predicted, z = denoiser(x, t).noise, noise(j)
            rate = self.rate(predicted, z)
            x_next = x - rate * sigma * predicted + safe_sqrt(2 * rate) * sigma * z
            return x_next.astype(x.dtype)

        return jax.lax.fori_loop(0, self.steps, iterate, x)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        (alpha_t, _), (alpha_s, sigma_s) = process.scales(t, x), process.scales(s, x)

        def anneal():
            kept = jnp.where(alpha_t == 0, 1.0, divide(alpha_s, alpha_t)) * x
            return self.correct(kept, s, denoiser, process, noise)

        def denoise():
            return denoiser(x, t).x0.astype(x.dtype)

        return jax.lax.cond(jnp.all(sigma_s == 0), denoise, anneal), state
