"""Sequences drawn one code at a time, each from what the ones before leave possible.

    code_i ~ softmax(logits_i / temperature),  logits_i = n + gamma (c - n)                     (1)

with c the logits that know the condition and n those that don't.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.random import example_keys
from diffusion_jax.types import Index, Key, Scalar

Carry = TypeVar("Carry")
# (what was carried, the last code [b], its number) -> (the next code's logits [b v], carried)
Next = Callable[[Carry, Int[Array, " b"], Int[Array, ""]], tuple[Float[Array, "b v"], Carry]]


def sample_codes(
    key: Key,
    first: Float[Array, "b v"],
    carry: Carry,
    following: Next,
    count: int,
    *,
    temperature: Scalar = 1.0,
    top_k: int | None = None,
    top_p: Scalar | None = None,
    index: Index | None = None,
) -> Int[Array, "b count"]:
    """`count` codes, by one `lax.scan`.

    Args:
        key: of the draws; that of code i of an example is folded from the key, the example's
            number and i, so example 17 doesn't depend on how many there are.
        first: the logits of the first code.
        carry: what `following` needs of the past: a cache of keys and values, say.
        following: (carry, code i, i) -> (logits of code i + 1, carry).
        count: of codes.
        temperature: 0 takes the likeliest code.
        top_k: only so many of the likeliest codes are drawn.
        top_p: only the likeliest codes that have this share of the probability together, always
            one at least (nucleus sampling).
        index: the examples' numbers, 0..b-1 by default.

    Raises:
        ValueError: no codes, or top_k below 1.

    Sources: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2; Holtzman et al. 2020
    (arXiv:1904.09751) for top_p.
    """
    if count < 1 or (top_k is not None and top_k < 1):
        raise ValueError(f"count is {count} and top_k {top_k}; both are at least 1.")
    index = jnp.arange(first.shape[0]) if index is None else index
    keys = example_keys(key, index)

    def draw(logits: Array, i: Array) -> Array:
        logits = kept(logits.astype(jnp.float32), top_k, top_p, temperature)
        noise = jax.vmap(lambda k: jax.random.gumbel(jax.random.fold_in(k, i), logits.shape[1:]))
        # argmax(logits + temperature gumbel) is a draw at this temperature, also where it is 0.
        return jnp.argmax(logits + temperature * noise(keys), axis=-1)

    def step(state: tuple[Any, Array], i: Array) -> tuple[tuple[Any, Array], Array]:
        carry, logits = state
        code = draw(logits, i)
        logits, carry = following(carry, code, i)
        return (carry, logits), code

    (carry, logits), codes = jax.lax.scan(step, (carry, first), jnp.arange(count - 1))
    last = draw(logits, jnp.asarray(count - 1))
    return jnp.concatenate([jnp.swapaxes(codes, 0, 1), last[:, None]], axis=1)


def guided_codes(
    following: Next, gamma: Scalar | None
) -> tuple[Callable[[Float[Array, "b2 v"]], Float[Array, "b v"]], Next]:
    """Equation (1) for a batch of 2 b, of which the second half doesn't know the condition.

    Args:
        following: of such a batch.
        gamma: None is of a batch of b that all know it, and changes nothing.

    Returns:
        What makes guided logits of both halves', for the first code; and `following` with it, which
        gives the code to both halves.
    """
    if gamma is None:
        return (lambda logits: logits), following

    def guided(logits: Array) -> Array:
        known, unknown = jnp.split(logits, 2)
        return unknown + gamma * (known - unknown)

    def both(carry: Any, code: Array, i: Array) -> tuple[Array, Any]:
        logits, carry = following(carry, jnp.concatenate([code, code]), i)
        return guided(logits), carry

    return guided, both


def kept(
    logits: Float[Array, "b v"],
    top_k: int | None,
    top_p: Scalar | None,
    temperature: Scalar = 1.0,
) -> Float[Array, "b v"]:
    """The logits, -inf where `sample_codes` may not draw."""
    if top_k is not None and top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p is not None:
        scaled = logits / jnp.maximum(temperature, 1e-6)
        falling = -jnp.sort(-scaled, axis=-1)
        share = jax.nn.softmax(falling, axis=-1)
        before = jnp.cumsum(share, axis=-1) - share  # of the likelier ones
        inside = (before < top_p).at[:, 0].set(True)
        least = jnp.min(jnp.where(inside, falling, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(scaled < least, -jnp.inf, logits)
    return logits
