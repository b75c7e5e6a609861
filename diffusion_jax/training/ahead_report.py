"""What a program that was compiled ahead says, against the chip's published peaks, as text.

A roofline is a bound: the step would take this long if the chip did one thing at its peak and all
else beside it. It uses the operations of the compiled text (`costs.py`), which agree with those
counted from shapes where nothing is computed twice; XLA's own count has a loop's body once.
"""

from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from diffusion_jax.training.chips import GIB, Chip, Roofline, roofline
from diffusion_jax.training.costs import Cost
from diffusion_jax.training.plan import axes_of, in_units, size_of
from diffusion_jax.training.sharding import batch_parts


@dataclass(frozen=True)
class Compiled:
    """One program on one chip of a topology.

    Attributes:
        cost: what it does; None where the compiler refused it, because it doesn't fit.
        needed: bytes of memory: arguments, results that don't take an argument's place, what is
            in use in between, and the program itself.
        flops: operations of the whole program, counted from shapes (`count_flops`).
        reported: operations on a chip by XLA's own analysis, which counts a loop's body once.
        seconds: that compilation took.
    """

    cost: Cost | None
    needed: int
    flops: int
    reported: float
    seconds: float


def heading(topology: str, mesh: Mesh, state: Any) -> str:
    """The topology, its mesh, and the training state on it.

    Args:
        topology: such as "v5e:16x16".
        mesh: of its chips.
        state: a `State` of shapes, dtypes and shardings.
    """
    return f"compiled for {topology}: {mesh.size} chips ({axes_of(mesh)})\n{size_of(state)}"


def program(name: str, compiled: Compiled, chip: Chip, mesh: Mesh, batch_size: int) -> str:
    """A program's memory, what it sends, and the least time that it takes."""
    lines = [
        f"{name}, batch {batch_size:,} ({batch_size / batch_parts(mesh):g} on a chip's part), "
        f"compiled in {compiled.seconds:.0f} s",
        f"  memory    {fit(compiled, chip)}",
    ]
    if compiled.cost is not None:
        least = bound(compiled.cost, chip)
        lines += [
            f"  sends     {sends(compiled.cost)}",
            f"  computes  {compiled.cost.flops / 1e12:.3g} TFLOP a chip; from shapes "
            f"{compiled.flops / mesh.size / 1e12:.3g}",
            f"  at least  {least.compute * 1e3:.3g} ms of products, {least.memory * 1e3:.3g} ms "
            f"for {in_units(compiled.cost.memory_bytes)}B of memory traffic, "
            f"{least.links * 1e3:.3g} ms of links: bound by {least.bound}",
            f"  at most   {_rate(batch_size / least.seconds)} examples a second, MFU "
            f"{mfu(compiled, chip, mesh, least):.1%}",
        ]
    return "\n".join(lines)


def fit(compiled: Compiled, chip: Chip) -> str:
    """Whether a program fits in a chip, and by how much."""
    usable, needed = chip.usable / GIB, compiled.needed / GIB
    of = f"{needed:.2f} of the {usable:.2f} GiB that a {chip.name} gives programs"
    if compiled.cost is None:
        return f"{of}: doesn't fit; the compiler refused it"
    if needed > usable:
        return f"{of}: doesn't fit, by {needed - usable:.2f} GiB"
    return f"{of}: fits, {usable - needed:.2f} GiB to spare"


def sends(cost: Cost) -> str:
    """What leaves a chip, by kind of collective."""
    kinds = sorted(cost.collectives.items(), key=lambda item: -item[1].bytes)
    listed = ", ".join(f"{s.count:,} {kind} {in_units(s.bytes)}B" for kind, s in kinds)
    return f"{in_units(cost.sent_bytes)}B a chip" + (f": {listed}" if listed else "")


def bound(cost: Cost, chip: Chip) -> Roofline:
    """The roofline of a program's cost."""
    return roofline(chip, cost.flops, cost.memory_bytes, cost.sent_bytes)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def mfu(compiled: Compiled, chip: Chip, mesh: Mesh, least: Roofline) -> float:
    """Model FLOPs a second at this bound, over the peak: what a run's MFU can't exceed.

    What rematerialisation computes again counts among the model's, as in `count_flops`.
    """
    return compiled.flops / mesh.size / (least.seconds * chip.flops)
