"""The one loop: x walks a grid of times, one sampler step at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion_jax.random import example_keys, normal
from diffusion_jax.types import Denoiser, Index, Key, Process, Sampler

_FIRST = 2**32 - 1  # the stream of x_1: no step of a grid has this number


def draw_prior(
    key: Key, process: Process, shape: tuple[int, ...], *, index: Index | None = None
) -> Array:
    """x_1 for `sample`, float32: example i depends on key and index[i] alone.

    Args:
        key: the seed's typed key; `sample` may be given the same one.
        process: turns white noise into x_1.
        shape: [b ...].
        index: global example numbers [b]; 0..b-1 by default.
    """
    index = jnp.arange(shape[0]) if index is None else index
    keys = example_keys(jax.random.fold_in(key, _FIRST), index)
    return process.prior(normal(keys, tuple(shape[1:])))


def sample(
    key: Key,
    sampler: Sampler,
    process: Process,
    denoiser: Denoiser,
    x: Float[Array, "b *shape"],
    times: Float[Array, " times"],
    *,
    index: Index | None = None,
    noise: Float[Array, "n draws b *shape"] | None = None,
) -> Float[Array, "b *shape"]:
    """x at times[-1], walked from x at times[0] in one `lax.scan`.

    It isn't jitted: jit the function that builds the denoiser and calls it. Arithmetic is
    float32 at least, whatever the network's. x is in the process's coordinates, and so is
    what comes back: `process.decode` makes pixels of it.

    Args:
        key: typed key; step i's draw j for example e is folded from (i, index[e], j).
        sampler: how x moves from t to s.
        process: the forward process that the denoiser belongs to.
        denoiser: (x, t [b]) -> Prediction.
        x: where to start, at times[0]; `draw_prior` gives x_1.
        times: any grid of n + 1 times: descending samples, ascending inverts.
        index: global example numbers [b]; 0..b-1 by default. The same number, key and grid
            give the same example in any batch.
        noise: white noise to use instead of the key, [n, sampler.draws, *x.shape].

    Raises:
        ValueError: times, index or noise have the wrong shape, or times aren't in [0, 1].

    Example, data that is N(0, 1) in every pixel, whose denoiser is known:

    >>> import diffusion_jax as dj
    >>> process = dj.Gaussian(dj.Cosine())
    >>> denoiser = dj.denoiser_from(lambda x, t: 0.0 * x, process, dj.V())
    >>> x = dj.draw_prior(jax.random.key(0), process, (4, 8, 8, 1))
    >>> dj.sample(jax.random.key(0), dj.DDIM(), process, denoiser, x, dj.trailing(10)).shape
    (4, 8, 8, 1)
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    times = jnp.asarray(times)
    index = jnp.arange(x.shape[0]) if index is None else index
    _check_shapes(sampler, x, times, index, noise)
    steps = jnp.arange(times.shape[0] - 1)

    def step(carry, inputs):
        x, state = carry
        i, t, s, given = inputs

        def draw(j):
            if given is not None:
                return given[j]
            keys = example_keys(jax.random.fold_in(key, i), index)
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, j)
            return normal(keys, x.shape[1:], x.dtype)

        t, s = (jnp.full(x.shape[:1], time, x.dtype) for time in (t, s))
        x_next, state = sampler.step(x, state, t, s, denoiser, process, draw)
        return (x_next.astype(x.dtype), state), None

    start = (x, sampler.init(x, times))
    (x, _), _ = jax.lax.scan(step, start, (steps, times[:-1], times[1:], noise))
    return x


def _check_shapes(sampler, x, times, index, noise) -> None:
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"times has shape {times.shape}; a grid is [n + 1] with n at least 1.")
    if not isinstance(times, jax.core.Tracer):
        known = np.asarray(times)  # inside jit, operations of jax.numpy would be traced
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError(
                f"times runs from {known[0]:g} to {known[-1]:g}; times lie in [0, 1] and 1 is "
                "noise (index k of a table of T is (k + 1)/T)."
            )
    if index.shape != x.shape[:1]:
        raise ValueError(f"index has shape {index.shape}; x has {x.shape[0]} examples.")
    if noise is not None:
        want = (times.shape[0] - 1, sampler.draws, *x.shape)
        if noise.shape != want:
            raise ValueError(f"noise has shape {noise.shape}; [n, draws, *x.shape] is {want}.")
