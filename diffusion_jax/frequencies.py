"""The orthonormal discrete cosine transform over height and width, for any size.

The DCT-II of n numbers and its inverse, the transpose:

    X_k = s_k sum_i x_i cos(pi k (2i + 1) / 2n),   s_0 = sqrt(1/n),  s_k = sqrt(2/n)        (1)

Reordered as v = (x_0, x_2, x_4, ..., x_5, x_3, x_1) it is one real Fourier transform of length n:

    W_k = exp(-i pi k / 2n) sum_j v_j exp(-2 pi i jk / n)
    X_k = s_k Re W_k,   X_{n-k} = -s_k Im W_k,   W_k = (X_k - i X_{n-k}) / s_k              (2)

Short axes are multiplied by the matrix of (1) instead, which is faster there on every device.

Source: Makhoul 1980, "A fast cosine transform in one and two dimensions".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.schedules.base import at_least_float32

MATRIX_UP_TO = 64  # the longest axis that is multiplied by a matrix


def dct(x: Float[Array, "... h w c"]) -> Float[Array, "... h w c"]:
    """Equation (1) over height and width: pixels to frequencies, frequency (0, 0) first."""
    return _along(_along(at_least_float32(x), -3, _forward), -2, _forward)


def inverse_dct(x: Float[Array, "... h w c"]) -> Float[Array, "... h w c"]:
    """Frequencies to pixels: the inverse of `dct`, and its transpose."""
    return _along(_along(at_least_float32(x), -3, _backward), -2, _backward)


def squared_frequencies(height: int, width: int) -> Float[np.ndarray, "{height} {width} 1"]:
    """(pi k / h)^2 + (pi l / w)^2: minus the Laplacian's eigenvalue of each frequency, 1/pixel^2.

    Heat that spreads for a time tau, a Gaussian blur of sigma^2 = 2 tau with mirrors for edges,
    multiplies the frequency by exp(-squared_frequency tau).
    """
    rows, columns = (np.pi * np.arange(n) / n for n in (height, width))
    return (rows[:, None] ** 2 + columns[None, :] ** 2)[..., None]


def _along(x: Array, axis: int, transform) -> Array:
    return jnp.moveaxis(transform(jnp.moveaxis(x, axis, -1)), -1, axis)


@functools.lru_cache(maxsize=32)
def _matrix(n: int) -> np.ndarray:
    """Rows k, columns i of (1), float64."""
    k, i = np.arange(n)[:, None], np.arange(n)[None, :]
    return _scale(n)[:, None] * np.cos(np.pi * k * (2 * i + 1) / (2 * n))


def _scale(n: int) -> np.ndarray:
    return np.sqrt(np.where(np.arange(n) == 0, 1.0, 2.0) / n)


def _order(n: int) -> np.ndarray:
    """0, 2, 4, ..., 5, 3, 1."""
    return np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])


def _twist(n: int) -> np.ndarray:
    """exp(i pi k / 2n) for the frequencies that a real transform keeps."""
    return np.exp(0.5j * np.pi * np.arange(n // 2 + 1) / n)


def _row(values: np.ndarray, like: Array) -> Array:
    """values [n] with the rank and type of an array [... n]."""
    return jnp.asarray(values.reshape((1,) * (like.ndim - 1) + (-1,)), like.dtype)


def _matmul(x: Array, matrix: np.ndarray) -> Array:
    # The default precision of accelerators is too low for an inverse.
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype), precision=jax.lax.Precision.HIGHEST)


def _forward(x: Array) -> Array:
    n = x.shape[-1]
    if n <= MATRIX_UP_TO:
        return _matmul(x, _matrix(n).T)
    w = jnp.fft.rfft(x[..., _order(n)])
    w = w * _row(_twist(n).conj(), w)
    mirrored = -w[..., 1 : (n + 1) // 2].imag[..., ::-1]
    return jnp.concatenate([w.real, mirrored], axis=-1) * _row(_scale(n), x)


def _backward(x: Array) -> Array:
    n = x.shape[-1]
    if n <= MATRIX_UP_TO:
        return _matmul(x, _matrix(n))
    x = x / _row(_scale(n), x)
    mirrored = jnp.concatenate([jnp.zeros_like(x[..., :1]), x[..., :0:-1]], axis=-1)
    kept = n // 2 + 1
    w = jax.lax.complex(x[..., :kept], -mirrored[..., :kept])
    v = jnp.fft.irfft(w * _row(_twist(n), w), n)
    return v[..., np.argsort(_order(n))]
