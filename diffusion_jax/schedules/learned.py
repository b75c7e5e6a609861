"""A schedule that is trained with the model: a monotone network gamma(t) = -log SNR.

    rise(t)  = a t + sum_j b_j sigmoid(c_j t + d_j),    a, b_j, c_j > 0                 (1)
    gamma(t) = gamma_0 + (gamma_1 - gamma_0) (rise(t) - rise(0)) / (rise(1) - rise(0))  (2)
    sigma^2  = sigmoid(gamma),  alpha^2 = sigmoid(-gamma)                               (3)

Positive numbers are softplus of free ones, so that every parameter vector is a schedule.
The ends gamma_0 and gamma_1 are trained by the bound, which doesn't depend on the curve between
them; the curve by the variance of the bound's estimate: `losses.vdm_loss`. A network is told
`progress`, not t, so that it knows the noise level while the curve moves.

Source: Kingma et al. 2021 (arXiv:2107.00630), section 3.2 and appendix H.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.schedules.base import at_least_float32
from diffusion_jax.types import Key, Params


def _free(positive: float) -> float:
    """The number whose softplus is this one."""
    return positive + math.log(-math.expm1(-positive))


def init_learned(
    key: Key, hidden: int = 64, gamma_0: float = -13.3, gamma_1: float = 5.0
) -> Params:
    """Parameters of a `Learned` schedule, nearly linear in t.

    Args:
        key: of the random units.
        hidden: sigmoids in (1).
        gamma_0: -log SNR at t = 0, next to clean data.
        gamma_1: -log SNR at t = 1.

    Raises:
        ValueError: hidden is below 1, or the ends aren't in order.
    """
    if hidden < 1 or not gamma_0 < gamma_1:
        raise ValueError(
            f"init_learned: hidden is {hidden}, gamma_0 is {gamma_0} and gamma_1 is {gamma_1}; "
            "hidden >= 1 and gamma_0 < gamma_1 are needed."
        )
    key_slope, key_bias = jax.random.split(key)
    return {
        "start": jnp.asarray(gamma_0, jnp.float32),
        "width": jnp.asarray(_free(gamma_1 - gamma_0), jnp.float32),
        "linear": jnp.asarray(_free(1.0), jnp.float32),
        "height": jnp.full((hidden,), _free(1.0 / hidden), jnp.float32),
        "slope": jax.random.uniform(key_slope, (hidden,), minval=0.0, maxval=8.0),
        "bias": jax.random.uniform(key_bias, (hidden,), minval=-4.0, maxval=0.0),
    }


@dataclass(frozen=True, eq=False)
class Learned:
    """The schedule of these parameters, equation (3).

    It closes over them: build it, and the process around it, where they are, inside the loss
    or the jitted sampler. t = 0 itself is clean data, as in a table: alpha = 1 and sigma = 0,
    and gamma(0) is what t reaches from above.

    Attributes:
        params: as `init_learned` makes them.
    """

    params: Params

    def train(self, *, ends: bool) -> "Learned":
        """The same, with gradients for its two ends alone, or for the curve between alone."""
        fixed = jax.lax.stop_gradient(self.params)
        trained = {name for name in self.params if (name in ("start", "width")) == ends}
        return Learned({name: (self.params if name in trained else fixed)[name] for name in fixed})

    def gamma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """-log SNR, equation (2), the shape of t; finite at t = 0 too."""
        return self.params["start"] + jax.nn.softplus(self.params["width"]) * self.progress(t)

    def progress(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """(gamma(t) - gamma_0) / (gamma_1 - gamma_0): from 0 to 1, the shape of t."""
        t = at_least_float32(t)
        p = self.params
        linear, height, slope = (jax.nn.softplus(p[name]) for name in ("linear", "height", "slope"))

        def rise(t):
            units = jax.nn.sigmoid(slope[None] * t[:, None] + p["bias"][None])
            return linear * t + jnp.sum(height[None] * units, -1)

        # One call, so that the same arithmetic meets both ends.
        ends = jnp.array([0.0, 1.0], t.dtype)
        values = rise(jnp.concatenate([ends, t.reshape(-1)]))
        share = (values[2:] - values[0]) / (values[1] - values[0])
        return share.reshape(t.shape)

    def alpha(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        alpha = jnp.exp(-0.5 * jax.nn.softplus(self.gamma(t)))
        return jnp.where(t <= 0, 1.0, alpha)

    def sigma(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        sigma = jnp.exp(-0.5 * jax.nn.softplus(-self.gamma(t)))
        return jnp.where(t <= 0, 0.0, sigma)
