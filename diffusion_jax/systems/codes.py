"""Pictures code by code: a transformer draws codes on the grid of a codec, which decodes them.

    k_i ~ p(k_i | k_1 .. k_{i-1}, what is told),   x = decode(k)                                (1)

The codes go row by row. It is the other model of the latents that `systems.latent` diffuses.

Sources: van den Oord et al. 2017 (arXiv:1711.00937); Esser et al. 2021 (arXiv:2012.09841); guidance
of codes: Gafni et al. 2022 (arXiv:2203.13131), section 3.4.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.models.conditioning import Conditioning, Known
from diffusion_jax.samplers.autoregressive import guided_codes, sample_codes
from diffusion_jax.types import Index, Key, Params, Scalar


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "codec", "guidance", "temperature", "top_p"],
    meta_fields=["network", "decoder", "conditioning", "size", "top_k"],
)
@dataclass(frozen=True)
class CodePictures:
    """Equation (1), as a pytree: `jax.jit(CodePictures.sample)(system, key, known, index)`.

    Attributes:
        network: a `models.CodeTransformer`.
        params: the network's.
        decoder: (the codec's parameters, codes [b h w]) -> pictures.
        codec: the codec's parameters.
        conditioning: what the network is told.
        size: (h, w) of the codes' grid.
        guidance: gamma, traced; None is no guidance, for half the work.
        temperature, top_k, top_p: as in `sample_codes`; `top_k` compiles anew.
    """

    network: Any = field(repr=False)
    params: Params = field(repr=False)
    decoder: Callable[[Params, Array], Array] = field(repr=False)
    codec: Params = field(repr=False)
    conditioning: Conditioning
    size: tuple[int, int]
    guidance: Scalar | None = None
    temperature: Scalar = 1.0
    top_k: int | None = None
    top_p: Scalar | None = None

    def sample(self, key: Key, known: Known, index: Index) -> Float[Array, "b h w c"]:
        """Pictures in [-1, 1] of what is known.

        Args:
            key: of the draws, with the examples' numbers.
            known: arrays [b ...].
            index: the examples' numbers [b].
        """
        return jnp.clip(self.decoder(self.codec, self.codes(key, known, index)), -1.0, 1.0)

    def codes(self, key: Key, known: Known, index: Index) -> Int[Array, "b h w"]:
        """The codes of such pictures."""
        b, variables = len(index), {"params": self.params}
        condition = self.conditioning.condition(known)
        if self.guidance is not None:
            null = self.conditioning.null(known)
            condition = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), condition, null)
            b = 2 * b

        def following(cache: Any, code: Array, i: Array) -> tuple[Array, Any]:
            return self.network.apply(variables, cache, code, i, method="following")

        first, cache = self.network.apply(variables, condition, b, method="start")
        guided, following_both = guided_codes(following, self.guidance)
        drawn = sample_codes(
            key,
            guided(first),
            cache,
            following_both,
            self.network.count,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            index=index,
        )
        return drawn.reshape(-1, *self.size)
