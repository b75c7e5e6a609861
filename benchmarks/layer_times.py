"""Where a network's gradient spends its time: every layer by itself, at its own shapes."""

import statistics
import time
from collections.abc import Callable


def timed(run: Callable[[], None], calls: int) -> list[float]:
    """Milliseconds of each call, after one that isn't counted."""
    run()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def layer_times(network, params, x, t) -> str:
    """Forward and backward time of every layer by itself, at the network's own shapes.

    Each layer is compiled alone, so nothing is fused across layers, and what lies between them
    (activations, sums, concatenations) is the rest.
    """
    # Imported here because PyTorch's side uses `timed`, and must not start JAX.
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from diffusion_jax.models.attention import Attention
    from diffusion_jax.models.layers import GroupNorm, ResizeUp

    kinds = {
        nn.Conv: "convolutions",
        ResizeUp: "convolutions",
        GroupNorm: "norms",
        Attention: "attention",
        nn.Dense: "dense",
    }
    seen: dict = {}  # layer and shapes -> [layer, arguments, how often]

    def record(call, args, kwargs, context):
        module = context.module
        inside = any(isinstance(m, Attention) for m in parents(module))
        if type(module) in kinds and context.method_name == "__call__" and not inside:
            alone = module.clone(parent=None, name=None)
            shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
            seen.setdefault((repr(alone), str(shapes)), [alone, shapes, 0])[2] += 1
        return call(*args, **kwargs)

    def call_all(params, x, t):
        with nn.intercept_methods(record):
            return network.apply({"params": params}, x, t)

    def gradient_time(module, shapes) -> float:
        key_input, key_weight, key_init = jax.random.split(jax.random.key(0), 3)
        args = jax.tree.map(lambda a: jax.random.normal(key_input, a.shape, a.dtype), shapes)
        variables = module.init(key_init, *args)
        out = jax.eval_shape(module.apply, variables, *args)
        weight = jax.random.normal(key_weight, out.shape, out.dtype)
        gradient = jax.jit(
            jax.grad(lambda v, a: (module.apply(v, *a) * weight).sum(), argnums=(0, 1))
        )
        return statistics.median(
            timed(lambda: jax.block_until_ready(gradient(variables, args)), 10)
        )

    jax.eval_shape(call_all, params, x, t)
    totals: dict[str, float] = {}
    lines = []
    for module, shapes, count in seen.values():
        once = gradient_time(module, shapes)
        kind = kinds[type(module)]
        totals[kind] = totals.get(kind, 0.0) + count * once
        size = " ".join(str(a.shape) for a in jax.tree.leaves(shapes))
        detail = f"-> {module.features}" if isinstance(module, nn.Conv | nn.Dense) else ""
        lines.append(
            (count * once, f"{count} x {once:.1f}  {type(module).__name__} {size} {detail}")
        )

    whole = jax.jit(jax.grad(lambda p: jnp.mean(network.apply({"params": p}, x, t) ** 2)))
    total = statistics.median(timed(lambda: jax.block_until_ready(whole(params)), 5))
    totals["the rest"] = total - sum(totals.values())
    report = [f"our gradient, forward and backward: {total:.0f} ms; its layers by themselves:"]
    report += [f"  {kind:13} {ms:7.0f} ms" for kind, ms in totals.items()]
    report += ["the costliest:"]
    report += [f"  {ms:7.1f} ms = {line}" for ms, line in sorted(lines, reverse=True)[:16]]
    return "\n".join(report)


def parents(module):
    """The modules that this one is a part of."""
    from flax.linen import Module

    while isinstance(module.parent, Module):
        module = module.parent
        yield module
