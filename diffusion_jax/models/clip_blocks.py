"""What CLIP's towers share: what they answer, their blocks, their activations.

Sources: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.4; Radford et al. 2019, GPT-2, for
the block and its initialisation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.attend import attend
from diffusion_jax.models.cuts import STACK
from diffusion_jax.models.layers import dense
from diffusion_jax.models.precision import island
from diffusion_jax.models.stack import EACH, SHARED, Remat, stacked

Activation = Callable[[Array], Array]


class Cache(NamedTuple):
    """What attention needs of the tokens so far.

    Attributes:
        keys, values: [layers b n heads d]; places that aren't filled yet are read by none.
    """

    keys: Array
    values: Array


class Encoding(NamedTuple):
    """What a tower says of each example; float32.

    Attributes:
        embedding: [b features], of length one: what CLIP compares.
        tokens: [b n width], the last layer's, after the final norm; of Stable Diffusion 1.x's text.
        penultimate: [b n width], the last but one layer's, without a norm; Stable Diffusion XL's.
        pooled: [b features], the embedding before its length is made one; Stable Diffusion XL's.
    """

    embedding: Array
    tokens: Array
    penultimate: Array
    pooled: Array


# e / |e|                                                                                    (1)
def encoding(
    pooled: Float[Array, "b features"],
    tokens: Float[Array, "b n width"],
    penultimate: Float[Array, "b m width2"],
) -> Encoding:
    """An encoding in float32, whose embedding is equation (1) of `pooled`."""
    pooled, tokens, penultimate = (island(x) for x in (pooled, tokens, penultimate))
    square = jnp.square(pooled).sum(-1, keepdims=True)
    embedding = pooled * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
    return Encoding(embedding, tokens, penultimate, pooled)


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x): OpenAI's weights were trained with it.

    Source: Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2.
    """
    return x * nn.sigmoid(1.702 * x)


def exact_gelu(x: Array) -> Array:
    """x Phi(x), Phi being the normal distribution function: most of OpenCLIP's weights."""
    return nn.gelu(x, approximate=False)


def layer_norm(h: Array, epsilon: float, name: str) -> Float[Array, "b n width"]:
    """Statistics in float32, and the variance from the centred values: h has a few features of
    hundreds, of which E[h^2] - E[h]^2 would be mostly rounding."""
    return nn.LayerNorm(epsilon, dtype=h.dtype, use_fast_variance=False, name=name)(h)


class Block(nn.Module):
    """h + attention(norm(h)), then h + MLP(norm(h)), as the body of a scan.

    Carries (h, the block's input), so that after the last one the last but one's output is known.
    With a cache, tokens are those from `place` on: the first ones all at once (`place` None), then
    one at a time; the block answers the cache with them.

    Attributes:
        heads: of the attention.
        hidden: width of the MLP's hidden layer.
        depth: of the stack: branches start the smaller, the more of them are added.
        causal: token i reads those up to i.
        activation, epsilon: of the MLP, and of the norms.
    """

    heads: int
    hidden: int
    depth: int
    causal: bool
    activation: Activation
    epsilon: float

    @nn.compact
    def __call__(
        self, carry: tuple[Array, Array], cache: Cache | None = None, place: Array | None = None
    ) -> tuple[tuple[Array, Array], Cache | None]:
        before, _ = carry
        b, n, width = before.shape

        def project(x, features, std, name):
            init = nn.initializers.normal(std)
            return dense(features, x.dtype, name, init=init)(x)

        inside, ending = width**-0.5, width**-0.5 * (2 * self.depth) ** -0.5
        normed = layer_norm(before, self.epsilon, "norm1")
        q, k, v = (
            project(normed, width, inside, name).reshape(b, n, self.heads, -1)
            for name in ("query", "key", "value")
        )
        if cache is not None:
            cache = Cache(
                *(_written(old, new, place) for old, new in zip(cache, (k, v), strict=True))
            )
        if cache is not None and place is not None:
            filled = jnp.arange(cache.keys.shape[1]) <= place
            filled = jnp.broadcast_to(filled[None], (b, len(filled)))
            y = attend(q, cache.keys, cache.values, filled)
        else:
            y = attend(q, k, v, causal=self.causal)
        h = before + project(y.reshape(b, n, width), width, ending, "out")

        normed = layer_norm(h, self.epsilon, "norm2")
        y = self.activation(project(normed, self.hidden, (2 * width) ** -0.5, "mlp1"))
        return (h + project(y, width, ending, "mlp2"), before), cache


def _written(cache: Array, new: Array, place: Array | None) -> Array:
    """The cache [b length heads d] with new ones [b n heads d] from `place` on, by default 0."""
    start = 0 if place is None else place
    return jax.lax.dynamic_update_slice_in_dim(cache, new.astype(cache.dtype), start, axis=1)


def run_blocks(
    tower: Any, h: Float[Array, "b n width"], *, causal: bool
) -> tuple[Float[Array, "b n width"], Float[Array, "b n width"]]:
    """(the last block's output, the last but one's), the blocks scanned under `cuts.STACK`.

    Args:
        tower: the module that calls this, whose attributes say how many blocks and of what kind.
        h: its tokens.
        causal: token i reads those up to i.
    """
    return _stack(tower, causal, tower.remat)((h, h))[0]


def run_cached(
    tower: Any, h: Float[Array, "b n width"], cache: Cache, place: Array | None = None
) -> tuple[Float[Array, "b n width"], Cache]:
    """The last block's output of causal blocks, and the cache with these tokens.

    Args:
        tower: as in `run_blocks`.
        h: the first tokens of all, or one more of each example.
        cache: `empty_cache`, or what was answered before.
        place: of the one token, an integer [], from 0; None is for the first ones.
    """
    (h, _), cache = _stack(tower, True, "none", (EACH, SHARED))((h, h), cache, place)
    return h, cache


def empty_cache(tower: Any, batch_size: int, length: int) -> Cache:
    """Room for so many tokens."""
    shape = (tower.layers, batch_size, length, tower.heads, tower.width // tower.heads)
    return Cache(jnp.zeros(shape, tower.dtype), jnp.zeros(shape, tower.dtype))


def _stack(tower: Any, causal: bool, remat: Remat, inputs: Any = SHARED) -> nn.Module:
    blocks = stacked(
        Block, tower.layers, remat, initializing=tower.is_initializing(), inputs=inputs
    )
    return blocks(
        tower.heads,
        tower.hidden or 4 * tower.width,
        tower.layers,
        causal,
        tower.activation,
        tower.epsilon,
        name=STACK,
    )


def check_tower(name: str, width: int, layers: int, heads: int) -> None:
    """Refuses sizes that no tower can have."""
    if layers < 1:
        raise ValueError(f"a {name} of {layers} layers; it needs one at least.")
    if heads < 1 or width % heads:
        raise ValueError(f"{name}: a width of {width} can't be cut into {heads} heads.")
