"""Restoration losses: how far the predicted x_0 is from the true one, by a distance of choice.

    L = E_{x_0, noise, t} mean distance(R(x_t, t), x_0, t),  x_t = corrupt(x_0, noise, t)   (1)

    absolute           |R - x_0|                       cold diffusion                       (2)
    after_corruption   |C_t R - C_t x_0|^2             soft diffusion, C_t the corruption
                                                       without its noise                    (3)
    SoftScore          (3) / (sigma_t^2 + floor^2)     the error of the score, times sigma  (4)

What plays the noise is a value too: `white_noise`, or for animorph `another_picture`.

Sources: Bansal et al. 2022 (arXiv:2208.09392), equation (1); Daras et al. 2022
(arXiv:2209.05442), the soft score matching objective.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.losses.denoising import unconditional
from diffusion_jax.random import white_noise
from diffusion_jax.timesteps import Times, Uniform
from diffusion_jax.types import (
    Apply,
    Batch,
    Condition,
    Extra,
    GaussianProcess,
    Index,
    Key,
    Loss,
    Metrics,
    Params,
    Process,
    Time,
)

Distance = Callable[[Any, Array, Array, Time], Array]  # (process, predicted, x0, t)
Partner = Callable[[Key, Index, Array], Array]


def absolute(process: Process, predicted: Array, x0: Array, t: Time) -> Array:
    """Equation (2), the shape of x0."""
    return jnp.abs(predicted - x0)


def after_corruption(process: Process, predicted: Array, x0: Array, t: Time) -> Array:
    """Equation (3), the shape of x0: what the corruption destroys needn't be guessed."""
    nothing = jnp.zeros_like(x0)
    return (process.corrupt(predicted, nothing, t) - process.corrupt(x0, nothing, t)) ** 2


@dataclass(frozen=True)
class SoftScore:
    """Equation (4), with `process.scales`: what is just coming out of the noise weighs most.

    Attributes:
        floor: keeps the weight of almost clean pictures finite.
    """

    floor: float = 0.05

    def __call__(self, process: GaussianProcess, predicted: Array, x0: Array, t: Time) -> Array:
        """The shape of x0."""
        _, sigma = process.scales(t, x0)
        return after_corruption(process, predicted, x0, t) / (sigma**2 + self.floor**2)


def another_picture(key: Key, index: Index, x0: Array) -> Array:
    """The next picture of the (micro-)batch, which the shuffled order of the data makes random.

    Raises:
        ValueError: there is only one.
    """
    if x0.shape[0] < 2:
        raise ValueError("another_picture needs at least 2 examples in a (micro-)batch.")
    return jnp.roll(x0, -1, axis=0)


def restoration_loss(
    apply: Apply,
    process: Process,
    *,
    distance: Distance = absolute,
    noise: Partner = white_noise,
    times: Times = Uniform(),
    condition: Callable[[Key, Index, Batch], Condition] = unconditional,
) -> Loss:
    """The loss of equation (1), for one batch; the network predicts x_0.

    Args:
        apply: (params, x, t, condition, *, key=None) -> x0; the key is for dropout.
        process: corrupts: any, with or without scales.
        distance: (process, predicted, x0, t) -> the shape of x0, in the process's coordinates.
        noise: (key, index, x0) -> what plays the noise.
        times: draws t for each example.
        condition: (key, index, batch) -> Condition, with its own dropping of conditions.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "mse"}, extra)).
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        key_time, key_noise, key_condition, key_network = jax.random.split(key, 4)
        x0 = process.encode(batch["image"])
        index = jnp.arange(x0.shape[0])
        t = times(key_time, index, x0.shape[0])
        x = process.corrupt(x0, noise(key_noise, index, x0), t)
        c = condition(key_condition, index, batch)
        y = process.encode(apply(params, process.decode(x), t, c, key=key_network))
        value = jnp.mean(distance(process, y, x0, t))
        metrics: Metrics = {"loss": value, "mse": jnp.mean((y - x0) ** 2)}
        return value, (metrics, extra)

    return loss
