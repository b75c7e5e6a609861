"""Denoisers: functions (x, t) -> Prediction(x0, noise), made from networks and composed.

Parameters and conditions are bound before, so samplers and guidance see two arguments.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.types import (
    Denoiser,
    Network,
    Parameterization,
    Prediction,
    Process,
    Scalar,
    Time,
)


def precondition(
    network: Network,
    *,
    input_scale: Callable[[Time], Array],
    network_time: Callable[[Time], Array],
) -> Network:
    """The network that sees c_in(t) x and c_noise(t) instead of x and t.

    Args:
        network: (x, t) -> y.
        input_scale: c_in, times [b] -> factors [b].
        network_time: c_noise, times [b] -> what the network is told [b].

    Source: Karras et al. 2022 (arXiv:2206.00364), equation (7).
    """

    def preconditioned(x: Array, t: Time) -> Array:
        return network(expand(input_scale(t), x) * x, network_time(t))

    return preconditioned


def table_time(steps: int) -> Callable[[Time], Array]:
    """c_noise of networks trained on a table: t = (k + 1)/steps becomes the index k."""
    return lambda t: t * steps - 1.0


def denoiser_from(
    network: Network, process: Process, parameterization: Parameterization
) -> Denoiser:
    """The denoiser, in the process's coordinates, of a network that works on pixels.

    Args:
        network: (x [b ...], t [b]) -> y with the shape of x.
        process: its coordinates, and the solve of y = a x0 + b noise.
        parameterization: names a and b.
    """

    def denoiser(x: Array, t: Time) -> Prediction:
        a, b = parameterization.coefficients(process, t, x)
        y = process.encode(network(process.decode(x), t)).astype(x.dtype)
        if y.shape != x.shape:
            raise ValueError(
                f"the network answered with shape {y.shape} to an x of shape {x.shape}; "
                "they must be equal."
            )
        return process.solve(x, t, y, a, b)

    return denoiser


def clip(denoiser: Denoiser, process: Process, low: Scalar = -1.0, high: Scalar = 1.0) -> Denoiser:
    """x0 clipped to the pixels' range, with the noise that goes with the clipped x0."""

    def clipped(x: Array, t: Time) -> Prediction:
        prediction = denoiser(x, t)
        x0 = process.encode(jnp.clip(process.decode(prediction.x0), low, high))
        return process.complete(x, t, x0)._replace(variance=prediction.variance)

    return clipped


def clip_x0_only(
    denoiser: Denoiser, process: Process, low: Scalar = -1.0, high: Scalar = 1.0
) -> Denoiser:
    """x0 clipped and the noise left as predicted, so that x = alpha x0 + sigma noise breaks.

    Some DDIM implementations do this; `clip` is the consistent form.
    """

    def clipped(x: Array, t: Time) -> Prediction:
        prediction = denoiser(x, t)
        x0 = process.encode(jnp.clip(process.decode(prediction.x0), low, high))
        return prediction._replace(x0=x0)

    return clipped
