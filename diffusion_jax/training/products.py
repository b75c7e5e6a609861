"""Operations of one matrix product or convolution of a compiled program.

A multiplication and an addition each. A convolution's taps that meet padding, or the holes of a
dilated input, don't count: the compiler writes batched products and gradients as convolutions that
are mostly holes, and does without them.
"""

import functools
import math
import re

from diffusion_jax.training.hlo import Computation, Instruction


def products(computation: Computation, i: Instruction) -> float:
    """Operations of a "dot" or a "convolution"."""
    left, right = (computation.instructions[name].shapes[0].dims for name in i.operands[:2])
    made = i.shapes[0].dims
    if i.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
        contracted = [int(d) for d in found.group(1).split(",") if d] if found else []
        return 2.0 * math.prod(made) * math.prod(left[d] for d in contracted)
    return 2.0 * _convolution(i.attributes, left, right, made)


def _convolution(
    attributes: str, left: tuple[int, ...], right: tuple[int, ...], made: tuple[int, ...]
) -> float:
    """Multiplications of a convolution that meet neither padding nor holes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    if labels is None:
        return 0.0
    lhs, rhs, out = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(re.findall(r"(\w+)=([\w\-]+)", window.group(1))) if window else {}
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    total = made[out.index("b")] * made[out.index("f")] * right[rhs.index("i")]
    total //= int(groups.group(1)) if groups else 1
    for axis in range(len(lhs) - 2):
        label = str(axis)
        sizes = left[lhs.index(label)], right[rhs.index(label)], made[out.index(label)]
        total *= _valid(*sizes, *_window(fields, axis))
    return float(total)


def _window(fields: dict[str, str], axis: int) -> tuple[int, int, int, int]:
    """stride, padding before, dilation of the input and of the kernel."""

    def at(name: str, usual: str) -> str:
        return fields[name].split("x")[axis] if name in fields else usual

    return (
        int(at("stride", "1")),
        int(at("pad", "0_0").split("_")[0]),
        int(at("lhs_dilate", "1")),
        int(at("rhs_dilate", "1")),
    )


@functools.lru_cache(maxsize=4096)
def _valid(
    size: int, taps: int, outputs: int, stride: int, before: int, holes: int, spread: int
) -> int:
    """Pairs of an output and a tap, along one axis, that meet an element of the input."""
    last = (size - 1) * holes
    count = 0
    for tap in range(taps):
        for output in range(outputs):
            place = output * stride + tap * spread - before
            count += 0 <= place <= last and place % holes == 0
    return count
