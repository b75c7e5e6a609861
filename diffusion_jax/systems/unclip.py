"""unCLIP, DALL-E 2: a picture from a text, by way of a CLIP's embedding z_i of the picture.

    p(x | text) = p(x | z_i, text) p(z_i | text)                                                (1)

The prior draws z_i, the decoder a picture from it, and upsamplers make it larger. What z_i is
between them can be turned: `variations`, `interpolations`, `text_difference`.

Source: Ramesh et al. 2022 (arXiv:2204.06125).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.interpolation import slerp
from diffusion_jax.models.conditioning import Known
from diffusion_jax.quantization import PrincipalCodes
from diffusion_jax.samplers import DDIM
from diffusion_jax.samplers.autoregressive import guided_codes, sample_codes
from diffusion_jax.systems.cascade import Stage, cascade
from diffusion_jax.types import Condition, Index, Key, Params, Scalar

PRIOR = 2**32 - 5  # the prior's stream of the chain's key, see `cascade`


class Prompts(NamedTuple):
    """Texts, as the stages read them.

    Attributes:
        tokens: [b n].
        embedding: z_t [b d], of length 1.
    """

    tokens: Int[Array, "b n"]
    embedding: Float[Array, "b d"]


@runtime_checkable
class Prior(Protocol):
    """Draws sqrt(d) z_i [b d] for known "tokens" and "text_embedding"; `Stage` or `CodeStage`."""

    def draw(self, key: Key, known: Known, index: Index) -> Float[Array, "b d"]: ...


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "codes", "guidance", "temperature"],
    meta_fields=["network", "condition"],
)
@dataclass(frozen=True)
class CodeStage:
    """The autoregressive prior with its parameters, as a pytree.

    With guidance gamma the logits are n + gamma (c - n), both from one call of twice the batch;
    None is no guidance, for half the work.

    Attributes:
        network: `models.CodePrior`, or what has its `start`, `following` and sizes.
        params: the network's.
        condition: known -> Condition.
        codes: what the codes stand for.
        guidance: gamma, traced, or None.
        temperature: of the draws.
    """

    network: Any = field(repr=False)
    params: Params = field(repr=False)
    condition: Callable[[Known], Condition] = field(repr=False)
    codes: PrincipalCodes = field(repr=False)
    guidance: Scalar | None = None
    temperature: Scalar = 1.0

    def draw(self, key: Key, known: Known, index: Index) -> Float[Array, "b d"]:
        """sqrt(d) z_i of each text; z_t . z_i is asked to be in the upper half of what it was in
        training, one of its buckets at random.

        Source: Ramesh et al. 2022, section 2.2.
        """
        key_codes, key_alignment = jax.random.split(key)
        b, buckets = len(index), self.network.alignments
        upper = jax.vmap(lambda k: jax.random.randint(k, (), buckets // 2, buckets))
        alignment = upper(jax.vmap(partial(jax.random.fold_in, key_alignment))(index))
        condition = self.condition(known)
        gamma, variables = self.guidance, {"params": self.params}
        if gamma is not None:
            condition = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), condition)
            alignment = jnp.concatenate([alignment, jnp.full(b, -1)])

        def following(cache: Any, code: Array, i: Array) -> tuple[Array, Any]:
            return self.network.apply(variables, cache, code, i, method="following")

        first, cache = self.network.apply(variables, condition, alignment, method="start")
        guided, both = guided_codes(following, gamma)
        codes = sample_codes(
            key_codes,
            guided(first),
            cache,
            both,
            self.network.count,
            temperature=self.temperature,
            index=index,
        )
        return self.codes.decode(codes)


def unit(z: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Rows of length 1."""
    return z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def best_of(
    key: Key, prior: Prior, told: Prompts, index: Index, count: int = 2
) -> Float[Array, "b d"]:
    """z_i of length 1: of `count` draws the one closest to z_t.

    Source: Ramesh et al. 2022, section 2.2: two draws.
    """
    known = {"tokens": told.tokens, "text_embedding": told.embedding}
    drawn = [unit(prior.draw(k, known, index)) for k in jax.random.split(key, count)]
    z = jnp.stack(drawn, axis=1)
    closest = jnp.argmax(jnp.sum(z * told.embedding[:, None], axis=-1), axis=1)
    return jnp.take_along_axis(z, closest[:, None, None], axis=1)[:, 0]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["prior", "decoder", "upsamplers"],
    meta_fields=["length"],
)
@dataclass(frozen=True)
class Unclip:
    """The chain, as a pytree: `jax.jit(Unclip.sample)(unclip, key, told, index)`.

    Attributes:
        decoder: draws from "image_embedding" and "tokens"; zeros stand for none.
        length: tokens of a text.
        prior: draws z_i; what begins with an embedding needs none.
        upsamplers: told "low", the picture before.
    """

    decoder: Stage
    length: int
    prior: Prior | None = None
    upsamplers: tuple[Stage, ...] = ()

    def sample(self, key: Key, told: Prompts, index: Index) -> Float[Array, "b h w c"]:
        """Pictures of texts, equation (1).

        Raises:
            ValueError: there is no prior.
        """
        if self.prior is None:
            raise ValueError("Unclip.sample needs a prior.")
        z = best_of(jax.random.fold_in(key, PRIOR), self.prior, told, index)
        return self.decode(key, z, index, told.tokens)

    def decode(
        self,
        key: Key,
        z: Float[Array, "b d"],
        index: Index,
        tokens: Int[Array, "b n"] | None = None,
        start: Array | None = None,
    ) -> Float[Array, "b h w c"]:
        """Pictures whose embedding is z.

        Args:
            key: of the noise.
            z: of length 1, or zeros for none.
            index: the examples' numbers [b].
            tokens: of texts; none by default.
            start: the decoder's x_1, such as `invert`'s.
        """
        stages = (self.decoder, *self.upsamplers)
        drawn = cascade(key, stages, self.known(z, tokens), index, start)
        return jnp.clip(drawn[-1], -1.0, 1.0)

    def known(self, z: Float[Array, "b d"], tokens: Int[Array, "b n"] | None) -> Known:
        """What the decoder is told."""
        if tokens is None:
            tokens = jnp.zeros((len(z), self.length), jnp.int32)
        return {"image_embedding": z, "tokens": tokens}

    def variations(
        self,
        key: Key,
        picture: Float[Array, "1 h w c"],
        z: Float[Array, "1 d"],
        index: Index,
        eta: Scalar = 1.0,
    ) -> Float[Array, "b h w c"]:
        """Pictures with the embedding of one: what it says stays, what it leaves open varies.

        All begin at the x_1 that DDIM finds for the picture, and walk with DDIM's eta, both
        without guidance, so that eta = 0 gives the picture back.

        Args:
            key: of the noise.
            picture: of the decoder's size.
            z: its embedding.
            index: numbers of the variations [b].
            eta: of DDIM; traced.

        Source: Ramesh et al. 2022, section 3.1.
        """
        x1 = self.decoder.invert(picture, self.known(z, None))
        many = [jnp.repeat(x, len(index), axis=0) for x in (z, x1)]
        varied = replace(self.decoder, sampler=DDIM(eta), guidance=None)
        return replace(self, decoder=varied).decode(key, many[0], index, start=many[1])


def interpolations(
    z: Float[Array, "2 d"], x1: Float[Array, "2 ..."], weights: Float[Array, " n"]
) -> tuple[Float[Array, "n d"], Float[Array, "n ..."]]:
    """Embeddings and decoder's noises between two pictures', by slerp; for `Unclip.decode`.

    Args:
        z: of length 1.
        x1: `Stage.invert`'s, which is without guidance, or one noise twice, to keep it fixed.
        weights: 0 is the first picture, 1 the second.

    Source: Ramesh et al. 2022, section 3.2.
    """

    def between(ends: Array) -> Array:
        first, second = (jnp.repeat(x[None], len(weights), axis=0) for x in ends)
        return slerp(first, second, weights)

    return between(z), between(x1)


# z_d = (z_t' - z_t) / |z_t' - z_t|,  z(w) = slerp(z_i, z_d, w)                               (2)
def text_difference(
    z: Float[Array, "b d"],
    before: Float[Array, "b d"],
    after: Float[Array, "b d"],
    weight: Scalar,
) -> Float[Array, "b d"]:
    """Embeddings turned from what one text says to what another one does, equation (2).

    Args:
        z: of pictures, of length 1.
        before, after: z_t of a text that describes them, and of what they should become.
        weight: w; 0 leaves them. The paper goes to between 0.25 and 0.5.

    Source: Ramesh et al. 2022, section 3.3.
    """
    return slerp(z, unit(after - before), weight)
