"""Score matching: losses whose minimum is s(x) = grad log p(x), for data x ~ p.

    explicit    E[ tr(ds/dx) + |s|^2 / 2 ]                                              (1)
    sliced      E[ v' (ds/dx) v + (v's)^2 / 2 ],   v ~ N(0, I)                          (2)
    reduced     E[ v' (ds/dx) v + |s|^2 / 2 ],     E (v's)^2 = |s|^2 put in             (3)
    denoising   E_i lambda(i) | s(x + sigma_i z, i) + z / sigma_i |^2 / 2               (4)

(1) to (3) equal E|s - grad log p|^2 / 2 up to a constant; (4), with lambda(i) = sigma_i^2, has
the score of data with noise sigma_i as its minimum at every i. Each is a mean over the batch.
For a score network of continuous time, (4) is `denoising_loss` with `Score()` and `simple`.

Sources: Hyvarinen 2005; Song et al. 2019 (arXiv:1905.07088), (5) to (8); Song & Ermon 2019
(arXiv:1907.05600), (5), (6).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.processes import expand
from diffusion_jax.random import example_keys, normal, uniform
from diffusion_jax.types import Batch, Extra, Key, Loss, Params

ScoreNetwork = Callable[[Params, Array], Array]  # (params, x [b ...]) -> s, the shape of x
ScaledScoreNetwork = Callable[[Params, Array, Array], Array]  # (params, x, i [b]) -> s


def _sums(values: Array) -> Float[Array, " b"]:
    return jnp.sum(values.reshape(values.shape[0], -1), axis=1)


def explicit_score_matching(score: ScoreNetwork) -> Loss:
    """Equation (1): one derivative for each dimension, so for few of them.

    Args:
        score: (params, x) -> s; example i of s depends on example i of x alone.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        x = batch["image"]

        def s(x):
            return score(params, x)

        def diagonal(unit):
            direction = jnp.broadcast_to(unit[None], x.shape)
            return _sums(jax.jvp(s, (x,), (direction,))[1] * direction)

        size = x[0].size
        units = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
        trace = jnp.sum(jax.vmap(diagonal)(units), axis=0)
        value = jnp.mean(trace + 0.5 * _sums(s(x) ** 2))
        return value, ({"loss": value}, extra)

    return loss


def _sliced(score: ScoreNetwork, slices: int, norm: Callable[[Array, Array], Array]) -> Loss:
    if slices < 1:
        raise ValueError(f"sliced score matching: slices is {slices}; at least 1 is needed.")

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        x = batch["image"]
        keys = example_keys(key, jnp.arange(x.shape[0]))
        directions = normal(keys, (slices, *x.shape[1:]), x.dtype)

        def along(v):
            s, derivative = jax.jvp(lambda x: score(params, x), (x,), (v,))
            return _sums(v * derivative) + 0.5 * norm(v, s)

        value = jnp.mean(jax.vmap(along, in_axes=1)(directions))
        return value, ({"loss": value}, extra)

    return loss


def sliced_score_matching(score: ScoreNetwork, slices: int = 1) -> Loss:
    """Equation (2): one derivative for each of `slices` random directions.

    Args:
        score: (params, x) -> s; example i of s depends on example i of x alone.
        slices: directions drawn for each example.
    """
    return _sliced(score, slices, lambda v, s: _sums(v * s) ** 2)


def sliced_score_matching_vr(score: ScoreNetwork, slices: int = 1) -> Loss:
    """Equation (3), the variance-reduced form of (2); arguments of `sliced_score_matching`."""
    return _sliced(score, slices, lambda v, s: _sums(s**2))


def geometric_scales(count: int, sigma_max: float, sigma_min: float) -> np.ndarray:
    """sigma_1 > ... > sigma_L in a geometric progression, float64.

    >>> geometric_scales(3, 1.0, 0.01)
    array([1.  , 0.1 , 0.01])
    """
    if count < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError(
            f"geometric_scales: count is {count}, sigma_max {sigma_max} and sigma_min "
            f"{sigma_min}; count >= 1 and 0 < sigma_min <= sigma_max are needed."
        )
    return np.geomspace(sigma_max, sigma_min, count)


def denoising_score_matching(
    score: ScaledScoreNetwork,
    scales: Sequence[float] | np.ndarray,
    weight: Callable[[Array], Array] = jnp.square,
) -> Loss:
    """Equation (4) over discrete noise scales, each example at one of them (NCSN).

    Args:
        score: (params, x, i) -> s; i [b] says which scale.
        scales: sigma_i.
        weight: lambda as a function of sigma_i; its square makes every scale count alike.
    """
    levels = np.asarray(scales, np.float64)
    if levels.ndim != 1 or not len(levels) or not np.all(levels > 0):
        raise ValueError("denoising_score_matching: scales must be a list of positive numbers.")

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        x = batch["image"]
        key_scale, key_noise = jax.random.split(key)
        index = jnp.arange(x.shape[0])
        u = uniform(example_keys(key_scale, index))
        i = jnp.minimum(jnp.floor(u * len(levels)), len(levels) - 1).astype(int)
        sigma = jnp.asarray(levels, x.dtype)[i]
        z = normal(example_keys(key_noise, index), x.shape[1:], x.dtype)
        s = score(params, x + expand(sigma, x) * z, i)
        # lambda |s + z / sigma|^2, written so that small sigmas don't overflow
        error = _sums((expand(sigma, x) * s + z) ** 2)
        value = jnp.mean(0.5 * weight(sigma) / sigma**2 * error)
        return value, ({"loss": value}, extra)

    return loss
