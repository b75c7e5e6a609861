"""Data whose optimal denoiser is known in closed form, so that samplers and losses can be exact.

For x = alpha x0 + sigma noise with x0 ~ N(mu, C), noise ~ N(0, I), and alpha, sigma the
process's scales (per example, or per frequency), x and (x0, noise) are jointly Gaussian:

    Cov[x]       = S = alpha C alpha + sigma^2 I                                        (1)
    E[x0 | x]    = mu + C alpha S^-1 (x - alpha mu)                                     (2)
    E[noise | x] = sigma S^-1 (x - alpha mu)                                            (3)

None of it divides by alpha or sigma, so it holds at both ends. A mixture, x0 ~ sum_k w_k
N(mu_k, C_k), averages the components' (2) and (3) with their responsibilities

    p(k | x) ~ w_k N(x; alpha mu_k, S_k).                                               (4)

Everything is in the process's coordinates; `network` answers in pixels, as networks do.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import diffusion_jax as dj
from diffusion_jax.types import Network

SCHEDULES = (
    dj.LinearBeta(),
    dj.ScaledLinearBeta(),
    dj.CosineBeta(),
    dj.Cosine(),
    dj.Rectified(),
)
MORE_SCHEDULES = (
    dj.Sigmoid(),
    dj.Sqrt(),
    dj.ZeroTerminalSNR(),
    dj.LinearVP(),
    dj.SubVP(),
    dj.VE(),
    dj.KarrasVE(),
    dj.Rectified(shift=3.0),
)
PARAMETERIZATIONS = (dj.X0(), dj.Noise(), dj.V(), dj.Score(), dj.Velocity())


def normal(seed: int, *shape: int) -> jax.Array:
    """Standard normal numbers from NumPy, which has nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def name(value) -> str:
    """A parametrized value's name in pytest's output."""
    return type(value).__name__


@dataclass(frozen=True, eq=False)
class Independent:
    """x0 ~ N(mean, diag(variance)); both have the shape of one example."""

    mean: np.ndarray
    variance: np.ndarray

    def draw(self, key, count: int):
        z = jax.random.normal(key, (count, *self.mean.shape))
        return self.mean[None] + np.sqrt(self.variance)[None] * z

    def moments(self, process, t, x):
        """Mean and variance of x_t, equation (1), each broadcast to x."""
        alpha, sigma = process.scales(t, x)
        mean = jnp.broadcast_to(alpha * jnp.asarray(self.mean[None], x.dtype), x.shape)
        return mean, alpha**2 * jnp.asarray(self.variance[None], x.dtype) + sigma**2

    def posterior_mean(self, process, x, t) -> dj.Prediction:
        """E[x0 | x_t] and E[noise | x_t], equations (2) and (3)."""
        alpha, sigma = process.scales(t, x)
        mean, variance = self.moments(process, t, x)
        whitened = (x - mean) / variance
        mu, c = (jnp.asarray(m[None], x.dtype) for m in (self.mean, self.variance))
        return dj.Prediction(x0=mu + c * alpha * whitened, noise=sigma * whitened)

    def log_density(self, process, x, t):
        """log q(x_t), [b]."""
        mean, variance = self.moments(process, t, x)
        terms = -0.5 * ((x - mean) ** 2 / variance + jnp.log(2 * jnp.pi * variance))
        return terms.reshape(x.shape[0], -1).sum(1)

    def flow(self, process, x, t, s):
        """Where the probability-flow ODE takes x from t to s.

        For Gaussian data each coordinate keeps its number of standard deviations:
        (x_s - E x_s) / std(x_s) = (x_t - E x_t) / std(x_t).
        """
        (mean_t, variance_t), (mean_s, variance_s) = (
            self.moments(process, time, x) for time in (t, s)
        )
        return mean_s + jnp.sqrt(variance_s / variance_t) * (x - mean_t)


@dataclass(frozen=True, eq=False)
class Correlated:
    """x0 ~ N(mean, covariance), examples [d], for processes with one alpha for all of x.

    Then S has C's eigenvectors, C = Q L Q^T, and Q^T x0 is `Independent` with variances L.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def _basis(self):
        variance, q = np.linalg.eigh(self.covariance)
        return Independent(self.mean @ q, variance), q

    def draw(self, key, count: int):
        independent, q = self._basis()
        return independent.draw(key, count) @ q.T

    def posterior_mean(self, process, x, t) -> dj.Prediction:
        independent, q = self._basis()
        q = jnp.asarray(q, x.dtype)
        x0, noise, _ = independent.posterior_mean(process, x @ q, t)
        return dj.Prediction(x0 @ q.T, noise @ q.T)

    def flow(self, process, x, t, s):
        independent, q = self._basis()
        q = jnp.asarray(q, x.dtype)
        return independent.flow(process, x @ q, t, s) @ q.T


@dataclass(frozen=True, eq=False)
class Mixture:
    """x0 ~ sum_k weights[k] components[k], equation (4)."""

    weights: tuple[float, ...]
    components: tuple[Independent, ...]

    def draw(self, key, count: int):
        key_which, key_value = jax.random.split(key)
        which = jax.random.choice(
            key_which, len(self.weights), (count,), p=jnp.asarray(self.weights)
        )
        values = jnp.stack([c.draw(key_value, count) for c in self.components])
        return values[which, jnp.arange(count)]

    def _of_each(self, function):
        """function(component) for all of them at once: values [k ...]."""
        means, variances = (
            np.stack([getattr(c, field) for c in self.components]) for field in ("mean", "variance")
        )
        return jax.vmap(lambda m, v: function(Independent(m, v)))(means, variances)

    def log_joint(self, process, x, t):
        """log w_k N(x; ...) of equation (4), [k b]: the logits of the perfect classifier."""
        densities = self._of_each(lambda c: c.log_density(process, x, t))
        return jnp.log(jnp.asarray(self.weights, densities.dtype))[:, None] + densities

    def predictions(self, process, x, t) -> dj.Prediction:
        """Each component's own posterior means, [k b ...]."""
        return self._of_each(lambda c: c.posterior_mean(process, x, t))

    def posterior_mean(self, process, x, t) -> dj.Prediction:
        responsibility = jax.nn.softmax(self.log_joint(process, x, t), axis=0)
        parts = self.predictions(process, x, t)
        return dj.Prediction(
            *(jnp.einsum("kb,kb...->b...", responsibility, v) for v in (parts.x0, parts.noise))
        )


def network(data, process, parameterization) -> Network:
    """The network that minimises every squared loss: y = a E[x0 | x] + b E[noise | x]."""

    def optimal(pixels, t):
        x = process.encode(pixels)
        a, b = parameterization.coefficients(process, t, x)
        x0, noise, _ = data.posterior_mean(process, x, t)
        return process.decode(a * x0 + b * noise)

    return optimal


def denoiser(data, process, parameterization):
    """The optimal denoiser, by way of a network with this parameterization."""
    return dj.denoiser_from(network(data, process, parameterization), process, parameterization)


def correlated(dimensions: int = 3, seed: int = 0) -> Correlated:
    """A Gaussian with correlations and variances from 0.1 to 2."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
    variance = np.geomspace(0.1, 2.0, dimensions)
    return Correlated(rng.normal(size=dimensions), q * variance @ q.T)
