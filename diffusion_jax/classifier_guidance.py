"""Guidance by gradients: through any sampler, by anything whose log probability has one.

By Bayes' rule grad log q(x_t | y) = grad log q(x_t) + g with g = grad log p(y | x_t), and
grad log q(x_t) = -noise / sigma. With a scale s, and with x_t = alpha x0 + sigma noise kept,

    noise' = noise - s sigma g,    x0' = x0 + s (sigma^2 / alpha) g.                    (1)

g is in the process's coordinates; whatever has the log probability sees pixels. Two kinds:

    p(y | x_t) of a classifier that was trained on noised pictures, x_t and t           (2)
    p(y | x0(x_t)) of anything that knows clean pictures, seen through the denoiser     (3)

Where alpha = 0, x_t says nothing of the picture, and (1) leaves the prediction as it is. Near
it x0' is as good as g times 1 / alpha is: `clip` keeps a classifier's errors in bounds.

A scale is what it is in `guidance`, but 0 is unguided: `within(s, low, high, outside=0.0)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion_jax.checks import has_values
from diffusion_jax.guidance import Scale, scale_at
from diffusion_jax.processes import divide
from diffusion_jax.schedules.base import at_least_float32
from diffusion_jax.types import Denoiser, GaussianProcess, Prediction, Time

LogProbability = Callable[[Array, Time], Array]  # (pixels, t) -> log p of each example, [b]


def classifier_guided(
    denoiser: Denoiser, log_probability: LogProbability, process: GaussianProcess, scale: Scale
) -> Denoiser:
    """Equation (1) with (2): for a perfect classifier and a scale of 1, the conditional denoiser.

    Args:
        denoiser: (x, t [b]) -> Prediction; unconditional, or with a condition of its own.
        log_probability: (pixels of x_t, t [b]) -> log p(y | x_t) [b], such as
            `class_log_probability`. Example i's may depend on example i alone.
        process: its coordinates and scales.
        scale: s.

    Raises:
        ValueError: log_probability doesn't answer with [b].

    Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), Algorithm 2.
    """

    def guided(x: Array, t: Time) -> Prediction:
        gradient = log_gradient(log_probability, process, x, t)
        return _shifted(denoiser(x, t), gradient, process, x, t, scale)

    return guided


def guided_by(
    denoiser: Denoiser, log_density: LogProbability, process: GaussianProcess, scale: Scale
) -> Denoiser:
    """Equation (1) with (3): the gradient goes through the denoiser, one forward, one backward.

    For y = A x0 + noise of covariance R, log N(y; A x0, R) is DPS, and reconstruction guidance
    where A takes a part of the picture. Both take x0 for certain: g is too large by what x_t
    doesn't say of x0. log N(y; A x0, R + A V_t A^T), with the covariance V_t of the data given
    x_t, is right for Gaussian data, which is why log_density is told t.

    Args:
        denoiser: (x, t [b]) -> Prediction.
        log_density: (pixels of x0(x_t), t [b]) -> [b], differentiable; a constant more or less
            changes nothing. Example i's may depend on example i alone.
        process: its coordinates and scales.
        scale: s.

    Raises:
        ValueError: log_density doesn't answer with [b].

    Sources: Chung et al. 2022 (arXiv:2209.14687), section 3; Ho et al. 2022
    (arXiv:2204.03458), section 3.1; for R + A V_t A^T, Song et al. 2023 (PGDM).
    """

    def guided(x: Array, t: Time) -> Prediction:
        def total(x: Array) -> tuple[Array, Prediction]:
            prediction = denoiser(x, t)
            return _total(log_density, process.decode(prediction.x0), t), prediction

        gradient, prediction = jax.grad(total, has_aux=True)(x)
        return _shifted(prediction, gradient, process, x, t, scale)

    return guided


def class_log_probability(
    logits: Callable[[Array, Time], Array], label: Int[Array, " b"]
) -> LogProbability:
    """log p(label | x) of a classifier, for `classifier_guided`.

    Args:
        logits: (pixels, t [b]) -> [b classes].
        label: one class for each example, 0 to classes - 1. Traced, another one isn't seen: it
            has no gradient, so that its example isn't guided.

    Raises:
        ValueError: a label that isn't one of the classes, or not one for each example.
    """
    label = label if isinstance(label, jax.Array) else np.asarray(label)
    if label.ndim != 1 or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"label is {label.dtype} of shape {label.shape}; it must be integers, [b]."
        )

    def log_probability(pixels: Array, t: Time) -> Float[Array, " b"]:
        answer = logits(pixels, t)
        if answer.ndim != 2 or answer.shape[:1] != label.shape:
            raise ValueError(
                f"the classifier's answer has shape {answer.shape} and label {label.shape}; they "
                "must be [b classes] and [b]."
            )
        every = jax.nn.log_softmax(at_least_float32(answer))
        if has_values(label):
            for wrong in (v for v in label.tolist() if not 0 <= v < every.shape[1]):
                raise ValueError(
                    f"label {wrong} isn't one of the classifier's {every.shape[1]} classes; "
                    f"labels run from 0 to {every.shape[1] - 1}."
                )
        known = jnp.where(label < 0, every.shape[1], label)  # or -1 would be the last class
        return jnp.take_along_axis(every, known[:, None], axis=1, mode="fill")[:, 0]

    return log_probability


def log_gradient(
    log_probability: LogProbability, process: GaussianProcess, x: Array, t: Time
) -> Array:
    """g = grad_x log p(y | decode(x)), the shape of x.

    Raises:
        ValueError: log_probability doesn't answer with [b].
    """
    return jax.grad(lambda x: _total(log_probability, process.decode(x), t))(x)


def _total(log_probability: LogProbability, pixels: Array, t: Time) -> Array:
    """The sum over examples, whose gradient is each example's own."""
    values = log_probability(pixels, t)
    if values.shape != t.shape:
        raise ValueError(
            f"the log probability has shape {values.shape}; it must be one number for each "
            f"example, [b] = {t.shape}."
        )
    return values.sum()


def _shifted(
    prediction: Prediction, g: Array, process: GaussianProcess, x: Array, t: Time, scale: Scale
) -> Prediction:
    """Equation (1)."""
    alpha, sigma = process.scales(t, x)
    move = scale_at(scale, t, x) * g
    return prediction._replace(
        x0=prediction.x0 + divide(sigma**2, alpha) * move,
        noise=prediction.noise - jnp.where(alpha == 0, 0.0, sigma) * move,
    )
