"""A profile of one training step, for TensorBoard's profiler and Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

Step = Callable[..., Any]


def traced(step: Step, call: int, folder: Path) -> Step:
    """The step, of which one call is profiled by itself.

    Args:
        step: anything that computes on devices; it is waited for in that call alone.
        call: which, from 1. The first one compiles, and its profile is mostly of that.
        folder: `plugins/profile/<time>/` is written in it.

    Source: JAX's documentation, "Profiling computation".
    """
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return step(*arguments)
        jax.block_until_ready(arguments)  # what was begun before doesn't belong to this step
        with (
            jax.profiler.trace(str(folder)),
            jax.profiler.StepTraceAnnotation("train", step_num=call),
        ):
            return jax.block_until_ready(step(*arguments))

    return counted
