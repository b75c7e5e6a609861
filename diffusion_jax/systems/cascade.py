"""Chains of diffusion models: each is trained alone, and told what the one before drew.

    p(x_n, ..., x_1 | c) = p(x_1 | c) p(x_2 | x_1, c) ... p(x_n | x_{n-1}, c)                   (1)

Source: Ho et al. 2021 (arXiv:2106.15282).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.editing import inversion_grid
from diffusion_jax.models.conditioning import Known
from diffusion_jax.samplers import DDIM, draw_prior, sample
from diffusion_jax.types import Denoiser, Index, Key, Params, Process, Sampler, Scalar

Tell = Callable[[Key, Index, Known], Known]  # what a stage makes of what it is told

START = 1e-3  # where inversion begins: most networks can't tell so little noise
# Streams of the key beside those of `samplers.loop`, `training.terminals`, `editing`, `unclip` and
# `models.conditioning` (2^32 - 1 to 2^32 - 6).
_STAGE, _TELL = 2**32 - 7, 2**32 - 8


def stage_key(key: Key, number: int) -> Key:
    """The key of stage `number` of a chain; the first, 0, has the chain's own."""
    return jax.random.fold_in(jax.random.fold_in(key, _STAGE), number) if number else key


def tell_key(key: Key) -> Key:
    """The key of a stage's `tell`, from the stage's."""
    return jax.random.fold_in(key, _TELL)


def as_told(key: Key, index: Index, known: Known) -> Known:
    """It's told what is known."""
    return known


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "guidance", "sampler", "times"],
    meta_fields=["denoiser", "process", "shape", "tell"],
)
@dataclass(frozen=True)
class Stage:
    """One diffusion model with its parameters, as a pytree: an argument of jitted functions.

    Attributes:
        denoiser: (params, known, guidance) -> Denoiser; without guidance where that is None.
        params: the network's.
        process: of the denoiser.
        shape: of what is drawn, without the batch.
        sampler: walks `times`.
        times: descending, from 1.
        guidance: gamma, traced; None is none, for half the work.
        tell: what `draw` makes of what is known, such as a small picture with noise; no change by
            default.
    """

    denoiser: Callable[[Params, Known, Scalar | None], Denoiser] = field(repr=False)
    params: Params = field(repr=False)
    process: Process
    shape: tuple[int, ...]
    sampler: Sampler
    times: Array
    guidance: Scalar | None = None
    tell: Tell = field(default=as_told, repr=False)

    def draw(
        self, key: Key, known: Known, index: Index, start: Array | None = None
    ) -> Float[Array, "b ..."]:
        """What the model draws for what is known, [b *shape], decoded.

        Args:
            key: of the noise, with the examples' numbers.
            known: arrays [b ...].
            index: the examples' numbers [b].
            start: x_1, by default the prior's.
        """
        x = start
        if x is None:
            x = draw_prior(key, self.process, (len(index), *self.shape), index=index)
        known = self.tell(tell_key(key), index, known)
        denoiser = self.denoiser(self.params, known, self.guidance)
        x = sample(key, self.sampler, self.process, denoiser, x, self.times, index=index)
        return self.process.decode(x)

    def invert(self, x0: Float[Array, "b ..."], known: Known) -> Float[Array, "b ..."]:
        """The x_1 that DDIM leads back to this, without guidance."""
        denoiser = self.denoiser(self.params, known, None)
        grid = inversion_grid(self.times, START)
        x, key = self.process.encode(x0), jax.random.key(0)
        return sample(key, DDIM(), self.process, denoiser, x, grid)


def cascade(
    key: Key, stages: Sequence[Stage], known: Known, index: Index, start: Array | None = None
) -> list[Float[Array, "b ..."]]:
    """What each stage draws, equation (1): the later ones are told the picture before as "low".

    As one jitted function it holds all stages' parameters at a time; jit `Stage.draw` where
    memory doesn't allow that.

    Args:
        key: of all stages; each has a key of its own, `stage_key`.
        stages: in their order. The first is told `known`, the others that and "low" [b h w c].
        known: arrays [b ...].
        index: the examples' numbers [b].
        start: the first stage's x_1, by default its prior's.

    Raises:
        ValueError: no stages.
    """
    if not stages:
        raise ValueError("a cascade needs one stage at least.")
    drawn = [stages[0].draw(stage_key(key, 0), known, index, start)]
    for number, stage in enumerate(stages[1:], 1):
        low = jnp.clip(drawn[-1], -1.0, 1.0)
        drawn.append(stage.draw(stage_key(key, number), {**known, "low": low}, index))
    return drawn
