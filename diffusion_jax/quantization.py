"""Vectors as a few integers: principal components, each cut into buckets.

    a = V (z - mean),  code_i = floor((a_i - low_i) / width_i)                                  (1)
    z ~ mean + V^T (low + (code + 1/2) width)                                                   (2)

Rows of V are the principal axes, by falling variance: the first codes say the most.

Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2, the autoregressive prior.
"""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PrincipalCodes:
    """Equations (1) and (2).

    Attributes:
        mean: [d].
        axes: V, [k d], of orthonormal rows.
        low: [k], where the first bucket begins.
        width: [k], of the buckets.
        buckets: of each component.
    """

    mean: Array
    axes: Array
    low: Array
    width: Array
    buckets: int = field(metadata={"static": True})

    def components(self, z: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """The first k principal components, a of equation (1)."""
        return jnp.matmul(z - self.mean[None], self.axes.T, precision=jax.lax.Precision.HIGHEST)

    def encode(self, z: Float[Array, "b d"]) -> Int[Array, "b k"]:
        """Equation (1); what lies outside of the buckets gets the nearest."""
        place = (self.components(z) - self.low[None]) / self.width[None]
        return jnp.clip(jnp.floor(place), 0, self.buckets - 1).astype(jnp.int32)

    def decode(self, codes: Int[Array, "b k"]) -> Float[Array, "b d"]:
        """Equation (2)."""
        a = self.low[None] + (codes + 0.5) * self.width[None]
        return self.from_components(a)

    def from_components(self, a: Float[Array, "b k2"]) -> Float[Array, "b d"]:
        """The vectors of so many first components, k2 at most k; the others are 0."""
        axes = self.axes[: a.shape[1]]
        return self.mean[None] + jnp.matmul(a, axes, precision=jax.lax.Precision.HIGHEST)


def fit_codes(
    z: Float[np.ndarray, "n d"],
    *,
    count: int | None = None,
    variance: float = 0.999,
    buckets: int = 1024,
) -> PrincipalCodes:
    """The codes of these vectors' distribution.

    Args:
        z: a sample of it.
        count: of components; by default as few as have this share of the variance.
        variance: the share.
        buckets: equally wide, from the smallest to the largest value of each component.

    Raises:
        ValueError: fewer than two vectors, vectors that are all alike or not finite, a share
            outside of (0, 1], no buckets, or no component or more than there are.

    Source: Ramesh et al. 2022, section 2.2: 319 of 1,024 components, 1,024 buckets.
    """
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or len(z) < 2 or not np.isfinite(z).all():
        raise ValueError(f"codes are fitted to finite vectors [n d], n > 1, not {list(z.shape)}.")
    if not 0 < variance <= 1 or buckets < 1:
        raise ValueError(
            f"variance is {variance} and buckets {buckets}; the share must be in (0, 1], and there "
            "is one bucket at least."
        )
    mean = z.mean(0)
    _, singular, axes = np.linalg.svd(z - mean, full_matrices=False)
    shares = np.cumsum(singular**2) / max(np.sum(singular**2), 1e-300)
    if not shares[-1] > 0.5:
        raise ValueError("codes can't be fitted to vectors that are all alike.")
    # A sum that rounds below 1 must not ask for one component more than there are.
    enough = min(int(np.searchsorted(shares, variance * (1 - 1e-12))) + 1, len(shares))
    kept = enough if count is None else count
    if not 1 <= kept <= len(axes):
        raise ValueError(f"{kept} components were asked for; there are {len(axes)}.")
    axes = signed(axes[:kept])
    a = (z - mean) @ axes.T
    low, high = a.min(0), a.max(0)
    width = np.maximum((high - low) / buckets, 1e-12)
    single = functools.partial(jnp.asarray, dtype=jnp.float32)
    return PrincipalCodes(
        mean=single(mean),
        axes=single(axes),
        low=single(low),
        width=single(width),
        buckets=buckets,
    )


def signed(axes: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
    """The axes, each with its largest entry positive: else two machines' codes may differ."""
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    return axes * np.sign(largest)


def fit_edges(values: Float[np.ndarray, " n"], buckets: int) -> Float[Array, " edges"]:
    """Where buckets that hold equally many of these values meet; `jnp.searchsorted` finds them."""
    shares = np.arange(1, buckets) / buckets
    return jnp.asarray(np.quantile(np.asarray(values, np.float64), shares), jnp.float32)
