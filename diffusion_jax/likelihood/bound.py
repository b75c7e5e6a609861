"""What the two variational bounds share: their three terms, and averages over draws."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.likelihood.pixels import Decoder
from diffusion_jax.random import example_keys
from diffusion_jax.types import Denoiser, GaussianProcess, Index, Key, Time


class Bound(NamedTuple):
    """-log P(x) is at most prior + diffusion + reconstruction, each [b] in nats.

    Attributes:
        prior: KL(q(x_1 | x) || p(x_1)).
        diffusion: what the steps between cost.
        reconstruction: -E log p(x | x_t) at the smallest t > 0.
        error: standard error of `diffusion` by the spread of its draws; an overestimate, for
            the draws of an example are stratified. 0 where all steps were summed.
    """

    prior: Float[Array, " b"]
    diffusion: Float[Array, " b"]
    reconstruction: Float[Array, " b"]
    error: Float[Array, " b"]

    @property
    def total(self) -> Float[Array, " b"]:
        """The bound on -log P(x), nats [b]."""
        return self.prior + self.diffusion + self.reconstruction


def sum_examples(values: Array, x: Array) -> Float[Array, " b"]:
    """The sum over each example of values that broadcast to x: [b]."""
    return jnp.broadcast_to(values, x.shape).reshape(x.shape[0], -1).sum(1)


def prior_term(process: GaussianProcess, x0: Array, t: Time) -> Float[Array, " b"]:
    """KL(N(alpha x0, sigma^2) || N(0, sigma^2)) = alpha^2 x0^2 / (2 sigma^2), at the last t."""
    alpha, sigma = process.scales(t, x0)
    return sum_examples(0.5 * (alpha * x0 / sigma) ** 2, x0)


def decode_term(
    process: GaussianProcess,
    decoder: Decoder,
    image: Array,
    x: Array,
    denoiser: Denoiser,
    t: Time,
) -> Float[Array, " b"]:
    """-log p(x | x_t) by the decoder with mean x0hat and the deviation sigma/alpha, in pixels.

    For a table that is beta_1 / (1 - beta_1), next to DDPM's beta_1. Where the process works on
    frequencies the variance is averaged, for an orthonormal basis keeps the trace. Any decoder
    gives a bound.
    """
    alpha, sigma = process.scales(t, x)
    variance = (sigma / alpha) ** 2
    if variance.size > variance.shape[0]:
        variance = jnp.mean(variance, tuple(range(1, variance.ndim)), keepdims=True)
    mean = process.decode(denoiser(x, t).x0)
    return -decoder(image, mean, jnp.broadcast_to(jnp.sqrt(variance), mean.shape))


def average(value: Callable[[Array], Array], draws: int) -> tuple[Array, Array]:
    """Mean of value(j) [b] over j < draws, and its standard error (infinite for one draw)."""
    _, values = jax.lax.scan(lambda _, j: (None, value(j)), None, jnp.arange(draws))
    mean = values.mean(0)
    squares = jnp.sum((values - mean[None]) ** 2, 0)
    error = jnp.sqrt(squares / (draws * (draws - 1))) if draws > 1 else jnp.full_like(mean, jnp.inf)
    return mean, error


def strata(key: Key, index: Index, j: Array, draws: int, dtype) -> Float[Array, " b"]:
    """(j + u) / draws in [0, 1) with a u of its own for each example: the j-th of `draws`."""
    u = jax.vmap(lambda key: jax.random.uniform(key, (), dtype))(example_keys(key, index))
    return (j + u) / draws


def check_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws is {draws}; an estimate needs at least 1.")
