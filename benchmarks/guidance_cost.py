"""What guidance costs: python benchmarks/guidance_cost.py

Guidance on: the fused denoiser at batch b against a plain one at batch 2b, which is the least that
two predictions can cost. Guidance off: the denoiser at batch b against the network by itself. Both
sides take turns in one process; times are medians. The number of convolutions says whether the
programs call the network alike. Parameters are random. Run it on a quiet machine.
"""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

import diffusion_jax as dj  # noqa: E402
from diffusion_jax.models import ClassLabels, UNet, digits_unet, from_linen  # noqa: E402

PAIRS = (("guided", "plain, twice the batch"), ("guidance off", "the network alone"))
PROCESS = dj.Gaussian(dj.Cosine())
LABELS = ClassLabels(10)
NETWORKS = {
    "digits_unet, 8x8x1": (digits_unet(), (8, 8, 1)),
    "UNet 64 (1, 2, 2), 32x32x3": (UNet(3, 64, (1, 2, 2)), (32, 32, 3)),
}


@dataclass(frozen=True)
class Program:
    """A jitted function of (params, x) with its arguments, compiled."""

    run: Callable[[], jax.Array]
    convolutions: int

    @classmethod
    def of(cls, function, params, x) -> "Program":
        lowered = jax.jit(function).lower(params, x)
        compiled = lowered.compile()
        count = lowered.as_text().count("stablehlo.convolution")
        return cls(lambda: jax.block_until_ready(compiled(params, x)), count)


def compare(a: Program, b: Program, rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, in turns, after one call that isn't counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        for which in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            (a, b)[which].run()
            times[which].append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def programs(model, batch: int) -> dict[str, tuple[Callable, int]]:
    """Each function of (params, x), and its batch."""

    def labels(x):
        return {"label": jnp.arange(len(x)) % 10}

    def condition(x):
        return LABELS.condition(labels(x))

    def guided(params, x):
        network = functools.partial(model.apply, params)
        fused = dj.classifier_free_fused(network, condition(x), LABELS.null(labels(x)), 2.0)
        return dj.denoiser_from(fused, PROCESS, dj.V())(x, jnp.full(len(x), 0.5))

    def plain(params, x):
        def network(x, t):
            return model.apply(params, x, t, condition(x))

        return dj.denoiser_from(network, PROCESS, dj.V())(x, jnp.full(len(x), 0.5))

    def bare(params, x):
        return model.apply(params, x, jnp.full(len(x), 0.5), condition(x))

    return {
        "guided": (guided, batch),
        "plain, twice the batch": (plain, 2 * batch),
        "guidance off": (plain, batch),
        "the network alone": (bare, batch),
    }


def main(batch: int = 16, rounds: int = 21) -> None:
    """Prints a table.

    Args:
        batch: b, pictures that are guided.
        rounds: timed calls of each.
    """
    print(f"batch {batch}, {jax.devices()[0].device_kind}, median of {rounds} calls")
    print("| network | | ms | against | ms | ratio | convolutions |\n|---|---|---|---|---|---|---|")
    for name, (network, shape) in NETWORKS.items():
        model = from_linen(network)
        x = jax.random.normal(jax.random.key(0), (2 * batch, *shape))
        params = model.init(
            jax.random.key(1), x[:1], jnp.ones(1), LABELS.null({"label": jnp.zeros(1, int)})
        )
        made = {
            label: Program.of(function, params, x[:count])
            for label, (function, count) in programs(model, batch).items()
        }
        for one, other in PAIRS:
            a, b = made[one], made[other]
            ms, least = compare(a, b, rounds)
            count = f"{a.convolutions} and {b.convolutions}"
            row = (name, one, f"{ms:.2f}", other, f"{least:.2f}", f"{ms / least:.3f}", count)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
