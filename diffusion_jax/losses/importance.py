"""Times drawn where the loss is large, by a history of losses that training carries.

For the mean of L_t over a table's T entries, drawing entry k with probability p_k and
weighing its loss by 1/(T p_k) is unbiased for any p > 0, and of least variance for

    p_k ~ sqrt(E[L_k^2]),                                                               (1)

estimated from the latest losses of each entry. Until every entry has its whole history, and
for a small share of the draws always, p is uniform.

Source: Nichol & Dhariwal 2021 (arXiv:2102.09672), equation (18).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.losses.denoising import Terms
from diffusion_jax.timesteps import Times, Uniform
from diffusion_jax.types import Batch, Key, Loss, Params


class History(NamedTuple):
    """The latest losses of each entry of a table: the `Extra` of `importance_sampled`.

    Attributes:
        losses: [T length], each row a ring.
        seen: how many losses each entry has had, [T].
    """

    losses: Float[Array, "steps length"]
    seen: Int[Array, " steps"]


def init_history(steps: int, length: int = 10) -> History:
    """No losses yet, for a table of this many steps.

    Raises:
        ValueError: steps or length is below 1.
    """
    if steps < 1 or length < 1:
        raise ValueError(f"init_history: steps is {steps} and length is {length}; at least 1.")
    return History(jnp.zeros((steps, length), jnp.float32), jnp.zeros((steps,), jnp.int32))


def entry_probabilities(history: History, uniform_share: float = 0.001) -> Float[Array, " steps"]:
    """p of equation (1), mixed with a uniform share; uniform until every row is full."""
    steps, length = history.losses.shape
    root = jnp.sqrt(jnp.mean(history.losses**2, axis=1))
    uniform = jnp.full_like(root, 1.0 / steps)
    total = jnp.sum(root)
    ready = jnp.all(history.seen >= length) & (total > 0)
    learned = root / jnp.where(ready, total, 1.0)
    mixed = (1.0 - uniform_share) * learned + uniform_share * uniform
    return jnp.where(ready, mixed, uniform)


def remember(history: History, k: Int[Array, " b"], losses: Float[Array, " b"]) -> History:
    """The history after these losses of entries k, in the batch's order."""
    steps, length = history.losses.shape
    same = k[:, None] == k[None, :]
    earlier = jnp.sum(jnp.tril(same, -1), axis=1)  # how many before this one had its entry
    later = jnp.sum(jnp.triu(same, 1), axis=1)
    slot = (history.seen[k] + earlier) % length
    row = jnp.where(later < length, k, steps)  # one that the batch overwrites itself is dropped
    kept = history.losses.at[row, slot].set(losses.astype(jnp.float32), mode="drop")
    return History(kept, history.seen.at[k].add(1))


def importance_sampled(
    terms: Terms,
    steps: int,
    *,
    draw: Times = Uniform(),
    uniform_share: float = 0.001,
) -> Loss:
    """The mean of these terms over t = (k + 1)/steps, entries drawn by equation (1).

    Args:
        terms: the loss of each example at a given time.
        steps: entries of the table, T.
        draw: gives the uniform numbers in [0, 1) that choose entries; `Stratified` evens
            them out over the batch.
        uniform_share: of the draws, however small an entry's losses.

    Returns:
        A loss whose extra is a `History` of `steps` rows: start from `init_history`.
    """

    def loss(params: Params, extra: History, key: Key, batch: Batch):
        if extra.seen.shape != (steps,):
            raise ValueError(
                f"the loss history has {extra.seen.shape[0]} rows and the table {steps} steps; "
                "start from init_history(steps)."
            )
        count = batch["image"].shape[0]
        p = entry_probabilities(extra, uniform_share)
        u = draw(jax.random.split(key, 4)[0], jnp.arange(count), count)
        edges = jnp.cumsum(p)
        k = jnp.searchsorted(edges, u * edges[-1], side="right")
        k = jnp.clip(k, 0, steps - 1)
        values, metrics = terms(params, key, batch, (k + 1.0) / steps)
        weight = 1.0 / (steps * p[k])
        value = jnp.mean(weight * values)
        means = {name: jnp.mean(weight * v) for name, v in metrics.items()}
        return value, (
            {"loss": value, **means},
            remember(extra, k, jax.lax.stop_gradient(values)),
        )

    return loss
