"""The training state, and one step of it: loss, gradient, optimizer, EMA, finite check."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffusion_jax.models.cuts import gathered
from diffusion_jax.training.sharding import batched, replicated, shardings_of, under
from diffusion_jax.types import Batch, Extra, Key, Loss, Metrics, Params


class State(NamedTuple):
    """Everything that training carries. There's no generator: step and seed give every draw.

    Attributes:
        step: steps done, int32.
        params: the network's.
        ema: their exponential moving average.
        optimizer: its state.
        extra: the loss's own; () for most.
    """

    step: Array
    params: Params
    ema: Params
    optimizer: Any
    extra: Extra


def init_state(params: Params, optimizer: optax.GradientTransformation, extra: Extra = ()) -> State:
    """The state before the first step; the average starts at the parameters."""
    ema = jax.tree.map(jnp.copy, params)  # a buffer of its own: the step donates both
    return State(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params), extra)


def ema_decay_at(step: Array, decay: float) -> Array:
    """min(decay, (1 + step)/(10 + step)): a warm-up that forgets the random start."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    like: State,
    *,
    ema_decay: float = 0.999,
    accumulate: int = 1,
):
    """One jitted call a training step, the state donated.

    Args:
        loss: (params, extra, key, batch) -> (loss, (metrics, extra)).
        optimizer: gradient clipping belongs to it, e.g. in `optax.chain`.
        like: a state, or its `jax.ShapeDtypeStruct`s: where its leaves lie is where those of the
            states that go in and come out lie (`sharding.abstract_like`).
        ema_decay: of the parameters' average, after its warm-up.
        accumulate: micro-batches whose gradients are averaged into one update.

    Returns:
        step(state, key, batch) -> (state, metrics). `key` is the run's: step k draws from
        fold_in(key, k). The metrics have the loss's own, "grad_norm", and "finite": whether loss
        and gradient are.
    """

    def gradient(params, extra, key, batch: Batch):
        def of(params):
            return loss(gathered(params), extra, key, batch)

        (_, (metrics, extra)), grads = jax.value_and_grad(of, has_aux=True)(params)
        return grads, metrics, extra

    def accumulated(params, extra, key, batch: Batch):
        if accumulate == 1:
            return gradient(params, extra, key, batch)
        # Micro-batch m takes every accumulate-th example, so that each device keeps its own.
        parts = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1), batch
        )

        def add(carry, part):
            grads, extra, m = carry
            more, metrics, extra = gradient(params, extra, jax.random.fold_in(key, m), part)
            return (jax.tree.map(jnp.add, grads, more), extra, m + 1), metrics

        zero = (jax.tree.map(jnp.zeros_like, params), extra, 0)
        (grads, extra, _), metrics = jax.lax.scan(add, zero, parts)
        return (
            jax.tree.map(lambda g: g / accumulate, grads),
            jax.tree.map(lambda m: m.mean(0), metrics),
            extra,
        )

    def step(state: State, key: Key, batch: Batch) -> tuple[State, Metrics]:
        step_key = jax.random.fold_in(key, state.step)
        grads, metrics, extra = accumulated(state.params, state.extra, step_key, batch)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - ema_decay_at(state.step, ema_decay))
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        return (
            State(state.step + 1, params, ema, optimizer_state, extra),
            {**metrics, "grad_norm": grad_norm, "finite": finite},
        )

    placed = shardings_of(like)
    mesh = placed.step.mesh
    whole = replicated(mesh)
    return jax.jit(
        under(mesh, step),
        donate_argnums=0,
        in_shardings=(placed, whole, batched(mesh)),
        out_shardings=(placed, whole),
    )
