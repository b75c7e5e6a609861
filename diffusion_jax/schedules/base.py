"""What all schedules share: precision, a square root that ends, and the log SNR."""

import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.types import Schedule


def at_least_float32(t) -> Array:
    """t as an array in float32, or in float64 when it is."""
    t = jnp.asarray(t)
    return t.astype(jnp.promote_types(t.dtype, jnp.float32))


def safe_sqrt(x: Array) -> Array:
    """sqrt(max(x, 0)) whose gradient is 0, not infinite, at and below 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def log_snr(schedule: Schedule, t: Array) -> Array:
    """Log signal-to-noise ratio: +inf where sigma = 0, -inf where alpha = 0.

    Args:
        schedule: gives alpha(t) and sigma(t).
        t: times in [0, 1], any shape.

    Returns:
        lambda(t) = log(alpha^2 / sigma^2), in nats, the shape of t.
    """
    return 2.0 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))
