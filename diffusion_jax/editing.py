"""Editing: inpainting, colourisation, image-to-image, inversion.

What draws noise wraps a sampler, since a denoiser has no key. After each of its steps

    x_s <- mask corrupt(known, z, s) + (1 - mask) x_s                                   (1)

and at s = 0 the known picture itself. The two parts of x_s are drawn apart, so (1) alone isn't
conditional sampling: known and unknown don't agree as they should. RePaint lets them settle by
going back up, x_s ~ q(x_s | x_t) with s > t, and down again, several times.

Image-to-image starts in the middle: `renoise` makes x at t from a picture, and the grid is
t * trailing(n). Inversion is `DDIM` on an ascending grid: `inversion_grid`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from diffusion_jax.checks import (
    check_between,
    check_descends,
    check_index,
    check_one_each,
    check_pixels,
    has_values,
)
from diffusion_jax.processes import expand, transition
from diffusion_jax.random import white_noise
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.schedules.base import at_least_float32
from diffusion_jax.types import Denoiser, Index, Key, Process, Sampler, Scalar, Time

# A stream of the key beside those of a grid's steps, of `samplers.loop` (2^32 - 1) and of
# `training.terminals` (2^32 - 2, 2^32 - 3).
_RENOISE = 2**32 - 4


def grey_basis() -> Float[Array, "3 3"]:
    """An orthonormal basis of the colours; coordinate 0 is grey, (r + g + b) / sqrt(3).

    Source: Song et al. 2021 (arXiv:2011.13456), appendix I.3.
    """
    rows = np.array([[1.0, 1.0, 1.0], [-2.0, 1.0, 1.0], [0.0, 1.0, -1.0]])
    return jnp.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), float)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["sampler", "known", "mask", "basis"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Replacement:
    """Inpainting by equation (1), with any sampler; on a descending grid.

    At t = 0 known pixels are the given ones bit for bit (to rounding with a basis, or where the
    process works in frequencies). A solver that makes x_s from what it kept of earlier steps
    (UniPC's corrector, single-step DPM-Solver++) sees the known ones through the denoiser only.

    The x that the walk starts from isn't touched. At the prior it needn't be; from lower down
    give one that agrees, `renoise(key, process, known, t)` or, where little is known,
    `Replacement.replace`.

    Attributes:
        sampler: makes the steps.
        known: the picture in pixels, [b h w c] or [1 h w c]. Where it isn't known any finite
            value will do, but a process that blurs mixes it in.
        mask: 1 where it is known, 0 where not, [b h w 1] or with any of these 1; a value in
            between mixes.
        basis: colours to replace in, orthonormal rows [c c]; the mask is then of its coordinates.
            Colourisation: known is grey, basis `grey_basis()`, mask [[[[1, 0, 0]]]].

    Source: Song et al. 2021 (arXiv:2011.13456), appendices I.2 and I.3.
    """

    sampler: Sampler
    known: Array
    mask: Array
    basis: Array | None = None

    @property
    def draws(self) -> int:
        return self.sampler.draws + 1

    def init(self, x: Array, times: Array) -> PyTree:
        """
        Raises:
            ValueError: known or mask don't broadcast to x, or have another rank; known holds
                integers, the mask isn't in [0, 1], or the basis isn't [c c].
        """
        for name, value in (("known", self.known), ("mask", self.mask)):
            shape = jnp.shape(value)
            pairs = zip(shape, x.shape, strict=False)
            if len(shape) != x.ndim or any(n not in (1, m) for n, m in pairs):
                raise ValueError(
                    f"{name} has shape {shape} and x {x.shape}; each of its dimensions "
                    "must be that of x, or 1."
                )
        check_pixels("known", self.known)
        check_between("the mask", self.mask, 0.0, 1.0)
        if self.basis is not None and jnp.shape(self.basis) != 2 * x.shape[-1:]:
            raise ValueError(
                f"basis has shape {jnp.shape(self.basis)} and x {x.shape}; it must be [c c]."
            )
        return self.sampler.init(x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x, state = self.sampler.step(x, state, t, s, denoiser, process, noise)
        return self.replace(x, s, process, noise(self.sampler.draws)), state

    def replace(self, x: Array, t: Time, process: Process, z: Array) -> Array:
        """x at t with its known part from the known picture, noised by the white noise z."""
        known = jnp.broadcast_to(self.known, x.shape).astype(x.dtype)
        noised = process.decode(process.corrupt(process.encode(known), z, t))
        noised = jnp.where(expand(t == 0, x), known, noised)
        noised, pixels = (_rotated(v, self.basis) for v in (noised, process.decode(x)))
        mask = jnp.asarray(self.mask, x.dtype)
        # Not a sum where the mask is 1, so that known pixels keep their bits.
        mixed = jnp.where(mask == 1, noised, mask * noised + (1 - mask) * pixels)
        back = None if self.basis is None else self.basis.T
        return process.encode(_rotated(mixed, back))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["sampler", "known", "mask", "basis"],
    meta_fields=[],
)
@dataclass(frozen=True)
class RePaint:
    """Inpainting on a grid with rises, `repaint_grid`.

    A step down is `Replacement`'s. A step up is the process's own, x_s ~ q(x_s | x_t), without
    a call of the denoiser; the sampler's state begins anew there, as what a multistep solver
    saw belongs to another x. (It counts the whole grid's steps again, so that
    `lower_order_final` doesn't see the end, and `Churn` spreads s_churn over rises too.)

    Attributes:
        sampler: makes the steps down; the paper's is `Ancestral()`.
        known, mask, basis: as in `Replacement`.

    Source: Lugmayr et al. 2022 (arXiv:2201.09865), Algorithm 1.
    """

    sampler: Sampler
    known: Array
    mask: Array
    basis: Array | None = None

    @property
    def draws(self) -> int:
        return self.sampler.draws + 1

    @property
    def _replacement(self) -> Replacement:
        return Replacement(self.sampler, self.known, self.mask, self.basis)

    def init(self, x: Array, times: Array) -> tuple[PyTree, Array]:
        """
        Raises:
            ValueError: as `Replacement`.
        """
        return self._replacement.init(x, times), times

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        kept, times = state

        def rise():
            r, v = transition(process, t, s, x)
            risen = (r * x + safe_sqrt(v) * noise(self.sampler.draws)).astype(x.dtype)
            return risen, self.sampler.init(risen, times)

        def fall():
            fallen, state = self._replacement.step(x, kept, t, s, denoiser, process, noise)
            return fallen.astype(x.dtype), state

        x, kept = jax.lax.cond(jnp.all(s > t), rise, fall)
        return x, (kept, times)


def _rotated(pixels: Array, rows: Array | None) -> Array:
    """Coordinates of the colours along these rows."""
    if rows is None:
        return pixels
    return jnp.einsum("...c,dc->...d", pixels, rows, precision=jax.lax.Precision.HIGHEST)


def repaint_grid(
    times: Float[Array, " n"], jump: int = 10, resamples: int = 10
) -> Float[Array, " m"]:
    """A descending grid of n steps with RePaint's jumps in it.

    From 1, 1 + jump, 1 + 2 jump, ... steps before its end the walk goes up by `jump` steps, at
    once, and comes down again, resamples - 1 times. jump = 1 is Algorithm 1 with U = resamples.

    Args:
        times: descending, [n + 1].
        jump: the paper's j, from 1 to n - 1.
        resamples: the paper's r, how often each stretch is walked; 1 gives `times`.

    Raises:
        ValueError: times that don't descend, a jump that doesn't fit them, or resamples below 1.

    Source: Lugmayr et al. 2022 (arXiv:2201.09865), section 4.2 and Algorithm 1; there j = 10,
    r = 10 and n = 250. A jump up in one step has the law of j small ones.

    >>> repaint_grid(jnp.array([1.0, 0.75, 0.5, 0.25, 0.0]), jump=2, resamples=2)
    Array([1.  , 0.75, 0.5 , 0.25, 0.75, 0.5 , 0.25, 0.  ], dtype=float32)
    """
    check_descends(times, 2)
    n = times.shape[0] - 1
    if not 1 <= jump <= n - 1:
        raise ValueError(
            f"jump is {jump}, and the grid has {n} steps; a jump is from 1 to {n - 1} of them."
        )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; each stretch is walked at least once.")
    walk = [n]  # steps from the end
    for place in range(n - 1, -1, -1):
        walk.append(place)
        if place % jump == 1 % jump and 1 <= place <= n - jump:
            walk += (resamples - 1) * list(range(place + jump, place - 1, -1))
    return times[n - np.array(walk)]


def renoise(
    key: Key,
    process: Process,
    image: Float[Array, "b *shape"],
    t: Scalar,
    *,
    index: Index | None = None,
) -> Float[Array, "b *shape"]:
    """x at t from a picture, where image-to-image starts, in the process's coordinates.

        x = renoise(key, process, image, strength)
        x = sample(key, sampler, process, denoiser, x, strength * trailing(n))

    Args:
        key: the seed's typed key; `sample` may be given the same one.
        process: noises the picture.
        image: in pixels.
        t: the strength, a scalar or [b]: 0 gives the picture back, 1 forgets it. Traced.
        index: global example numbers [b]; 0..b-1 by default.

    Raises:
        ValueError: a picture of integers, a strength out of [0, 1], or not one t and one number
            for each example.

    Source: Meng et al. 2021 (arXiv:2108.01073), Algorithm 1.
    """
    check_pixels("image", image)
    check_between("the strength t", t, 0.0, 1.0)
    check_one_each("the strength t", t, image.shape[0])
    x0 = process.encode(at_least_float32(image))
    index = jnp.arange(x0.shape[0]) if index is None else index
    check_index(index, x0.shape[0])
    z = white_noise(jax.random.fold_in(key, _RENOISE), index, x0)
    return process.corrupt(x0, z, jnp.broadcast_to(jnp.asarray(t, x0.dtype), x0.shape[:1]))


def inversion_grid(times: Float[Array, " n"], start: Scalar) -> Float[Array, " n"]:
    """The ascending grid on which `DDIM` inverts: from `start`, in place of the last time, up.

        grid = inversion_grid(trailing(n), 1e-3)
        code = sample(key, DDIM(), process, denoiser, x, grid)          # x_0 to x_1
        again = sample(key, DDIM(), process, denoiser, code, grid[::-1])

    A picture stands for x at `start`, a small time at which little noise is missing from it.
    The error of the way back halves as the steps double.

    Args:
        times: descending, [n + 1].
        start: above 0, where most networks can't tell the noise, and below times[-2]. Traced.

    Raises:
        ValueError: a start that isn't, or times that don't descend.

    Source: Song et al. 2021 (arXiv:2010.02502), section 4.3.

    >>> inversion_grid(jnp.array([1.0, 0.5, 0.25, 0.0]), 0.01)
    Array([0.01, 0.25, 0.5 , 1.  ], dtype=float32)
    """
    check_descends(times, 1)
    if has_values(times, start) and not 0 < float(start) < float(times[-2]):
        raise ValueError(
            f"start is {float(start):g}; inversion starts between 0 and the grid's last step, "
            f"which begins at {float(times[-2]):g}."
        )
    return jnp.append(times[:-1], jnp.asarray(start, times.dtype))[::-1]
