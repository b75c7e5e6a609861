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
        network: (x [b ...], t [b]) -> y with the shape of x, or what `parameterization`
            splits into that and a variance with the shape of x.
        process: its coordinates, and the solve of y = a x0 + b noise.
        parameterization: names a and b.
    """

    def denoiser(x: Array, t: Time) -> Prediction:
        a, b = parameterization.coefficients(process, t, x)
        answer = network(process.decode(x), t)
        y, variance = parameterization.split(answer)
        y = process.encode(y).astype(x.dtype)
        if y.shape != x.shape or (variance is not None and variance.shape != x.shape):
            raise ValueError(
                f"the network answered with shape {answer.shape} to an x of shape {x.shape}; "
                "they must be equal, but for twice the channels with a learned variance."
            )
        prediction = process.solve(x, t, y, a, b)
        if variance is None:
            return prediction
        if process.encode(answer) is not answer:
            raise ValueError(
                f"{process} works in coordinates of its own, where a variance that is learned in "
                "pixels has no meaning."
            )
        return prediction._replace(variance=variance.astype(x.dtype))

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


def dynamic_threshold(
    denoiser: Denoiser, process: Process, quantile: Scalar = 0.995, maximum: Scalar = jnp.inf
) -> Denoiser:
    """x0 clipped to [-r, r] and divided by r, with the noise that goes with it.

    r is the quantile of |x0| over an example's pixels, at least 1 and at most `maximum`: where
    few pixels leave [-1, 1] it is `clip`, where many do they are pulled inwards together.

    Source: Saharia et al. 2022 (arXiv:2205.11487), section 2.3.
    """

    def thresholded(x: Array, t: Time) -> Prediction:
        prediction = denoiser(x, t)
        pixels = process.decode(prediction.x0)
        size = jnp.abs(pixels).reshape(pixels.shape[0], -1)
        r = expand(jnp.clip(jnp.quantile(size, quantile, axis=1), 1.0, maximum), pixels)
        x0 = process.encode(jnp.clip(pixels, -r, r) / r)
        return process.complete(x, t, x0)._replace(variance=prediction.variance)

    return thresholded
