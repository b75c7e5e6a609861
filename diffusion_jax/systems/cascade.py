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

START = 1e-3  # where inversion begins: most networks can't tell so little noise


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "guidance", "sampler", "times"],
    meta_fields=["denoiser", "process", "shape"],
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
    """

    denoiser: Callable[[Params, Known, Scalar | None], Denoiser] = field(repr=False)
    params: Params = field(repr=False)
    process: Process
    shape: tuple[int, ...]
    sampler: Sampler
    times: Array
    guidance: Scalar | None = None

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
        key: of all stages; each has a key of its own.
        stages: in their order. The first is told `known`, the others that and "low" [b h w c].
        known: arrays [b ...].
        index: the examples' numbers [b].
        start: the first stage's x_1, by default its prior's.

    Raises:
        ValueError: no stages.
    """
    if not stages:
        raise ValueError("a cascade needs one stage at least.")
    first, *rest = jax.random.split(key, len(stages))
    drawn = [stages[0].draw(first, known, index, start)]
    for own, stage in zip(rest, stages[1:], strict=True):
        drawn.append(stage.draw(own, {**known, "low": jnp.clip(drawn[-1], -1.0, 1.0)}, index))
    return drawn
