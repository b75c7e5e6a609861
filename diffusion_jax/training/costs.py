"""What one run of a compiled program costs a chip: operations, memory traffic, what it sends.

A loop's body counts as often as the loop runs, and a fusion's inside not as memory traffic: only
what it reads and writes. A conditional counts as its dearest branch.

    operations     matrix products and convolutions, a multiplication and an addition each; those
                   that would meet padding or the holes of a dilated input don't count
    traffic        bytes to and from the chip's memory, at their logical size; of an array that is
                   only sliced, the slice; what lies closer to the arithmetic is free
    sent           bytes that leave a chip of a group of g, on a ring, of an operand of n bytes:
                       all-gather n (g - 1), reduce-scatter and all-to-all n (g - 1)/g,
                       all-reduce 2 n (g - 1)/g, collective-permute n

A collective that runs beside other work appears in the text once for each part of that work,
always with the same channel; it counts once.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from diffusion_jax.training.hlo import Computation, Instruction, Program, Shape, trip_count
from diffusion_jax.training.products import products

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_FREE = {
    *("parameter", "constant", "iota", "partition-id", "replica-id", "after-all"),
    *("tuple", "get-tuple-element", "bitcast", "add-dependency", "opt-barrier", "async-update"),
}


@dataclass(frozen=True)
class Sent:
    """Collectives of one kind: how many run, and the bytes that one chip sends."""

    count: int = 0
    bytes: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Of one chip, for one run.

    Attributes:
        flops: operations of products.
        memory_bytes: to and from memory.
        channels: collectives by kind and channel.
    """

    flops: float = 0.0
    memory_bytes: float = 0.0
    channels: dict[tuple[str, str], Sent] = field(default_factory=dict)

    def plus(self, other: "Cost") -> "Cost":
        """One after the other; a channel that both name is one collective in parts."""
        channels = dict(self.channels)
        for key, sent in other.channels.items():
            channels[key] = max(sent, channels.get(key, sent), key=lambda s: s.bytes)
        return Cost(self.flops + other.flops, self.memory_bytes + other.memory_bytes, channels)

    def times(self, count: int) -> "Cost":
        """This cost `count` times over."""
        channels = {
            key: Sent(sent.count * count, sent.bytes * count) for key, sent in self.channels.items()
        }
        return Cost(self.flops * count, self.memory_bytes * count, channels)

    @property
    def collectives(self) -> dict[str, Sent]:
        """The collectives by kind, those that run."""
        found: dict[str, Sent] = {}
        for (kind, _), sent in self.channels.items():
            before = found.get(kind, Sent())
            found[kind] = Sent(before.count + sent.count, before.bytes + sent.bytes)
        return found

    @property
    def sent_bytes(self) -> float:
        """Over all kinds."""
        return sum(sent.bytes for sent in self.channels.values())


def cost_of(program: Program) -> Cost:
    """The cost of one run of a program on one chip."""
    return _Counter(program).of(program.entry, fused=False)


class _Counter:
    """Costs of a program's computations, each counted once."""

    def __init__(self, program: Program):
        self._computations = program.computations
        self._program = program
        self.of: Callable[..., Cost] = functools.cache(self._of)
        self._reads: Callable[[str, int], float] = functools.cache(self._reads_of)

    def _of(self, name: str, fused: bool) -> Cost:
        computation = self._computations[name]
        total = Cost()
        for instruction in computation.instructions.values():
            total = total.plus(self._instruction(computation, instruction, fused))
        return total

    def _instruction(self, computation: Computation, i: Instruction, fused: bool) -> Cost:
        if i.opcode == "while":
            body = self.of(i.called("body"), fused=fused)
            return body.times(trip_count(self._program, i))
        if i.opcode == "conditional":
            branches = [self.of(name, fused=fused) for name in _branches(i)]
            return max(branches, key=lambda cost: (cost.flops, cost.memory_bytes))
        if i.opcode == "call":
            return self.of(i.called("to_apply"), fused=fused)
        if i.opcode == "async-start":
            return self.of(i.called("calls"), fused=fused)
        traffic = 0.0 if fused else self._traffic(computation, i)
        if i.opcode == "fusion":
            inside = self.of(i.called("calls"), fused=True)
            return inside.plus(Cost(memory_bytes=traffic))
        if i.opcode in ("dot", "convolution"):
            return Cost(products(computation, i), traffic)
        kind = i.opcode.removesuffix("-start")
        if kind in KINDS:
            return Cost(0.0, traffic, _sent(computation, i, kind))
        return Cost(memory_bytes=traffic)

    def _traffic(self, computation: Computation, i: Instruction) -> float:
        if i.opcode in _FREE or i.opcode.endswith("-done"):
            return 0.0
        if 'custom_call_target="AllocateBuffer"' in i.attributes:
            return 0.0
        operands = [computation.instructions[name] for name in i.operands]
        if i.opcode == "fusion":
            called = i.called("calls") or ""
            read = (
                min(self._reads(called, number), operand.memory_bytes)
                for number, operand in enumerate(operands)
            )
            return sum(read) + self._written(called, i.shapes)
        if i.opcode in ("dynamic-slice", "slice", "gather"):
            return _sliced(operands[0], i) + i.memory_bytes
        if i.opcode == "dynamic-update-slice":
            return operands[1].memory_bytes + _sliced(i, operands[1])
        if i.opcode == "copy-start":  # makes (destination, source, ...)
            return i.shapes[0].memory_bytes + i.shapes[1].memory_bytes
        if i.opcode.endswith("-start"):
            return 2 * sum(operand.memory_bytes for operand in operands)
        return sum(operand.memory_bytes for operand in operands) + i.memory_bytes

    def _reads_of(self, name: str, number: int) -> float:
        """Bytes that a fused computation reads of its argument `number`."""
        parameter = self._computations[name].parameters.get(number)
        return self._used(self._computations[name], parameter) if parameter else 0.0

    def _used(self, computation: Computation, value: Instruction) -> float:
        total = 0.0
        for user in computation.users[value.name]:
            first = user.operands[0] == value.name
            if user.opcode in ("tuple", "custom-call") or user.opcode in KINDS:
                continue  # handed on where it lies, or counted with what is sent
            if user.opcode in ("bitcast", "get-tuple-element"):
                total += self._used(computation, user)
            elif user.opcode in ("dynamic-slice", "slice", "gather") and first:
                total += user.bytes
            elif user.opcode == "dynamic-update-slice" and first:
                continue
            elif user.opcode == "fusion":
                called = user.called("calls") or ""
                places = [k for k, name in enumerate(user.operands) if name == value.name]
                total += sum(self._reads(called, k) for k in places)
            else:
                return value.bytes
        return min(total, value.bytes)

    def _written(self, name: str, shapes: Iterable[Shape]) -> float:
        """Bytes that a fused computation writes, its results lying where `shapes` say."""
        computation = self._computations[name]
        root = computation.instructions[computation.root]
        parts = root.operands if root.opcode == "tuple" else (root.name,)
        shapes = list(shapes)
        if len(parts) != len(shapes):
            return 0.0  # the parts of a collective that runs beside other work
        return sum(
            min(self._result(computation, part), shape.memory_bytes)
            for part, shape in zip(parts, shapes, strict=True)
        )

    def _result(self, computation: Computation, name: str) -> float:
        made = computation.instructions[name]
        if made.opcode == "bitcast":
            return self._result(computation, made.operands[0])
        if made.opcode == "parameter" or "AsyncCollective" in made.attributes:
            return 0.0
        if made.opcode == "dynamic-update-slice":
            return computation.instructions[made.operands[1]].bytes
        return made.bytes


def _sliced(whole: Instruction, part: Instruction) -> float:
    return part.bytes if whole.memory_bytes else 0.0


def _branches(i: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", i.attributes)
    if listed:
        return re.findall(r"%[\w.\-]+", listed.group(1))
    return [i.called(name) or "" for name in ("true_computation", "false_computation")]


def _sent(computation: Computation, i: Instruction, kind: str) -> dict[tuple[str, str], Sent]:
    if computation.name.startswith("%all-reduce-scatter"):  # an all-reduce of which a part is kept
        kind = "reduce-scatter"
    size = sum(computation.instructions[name].bytes for name in i.operands)
    g = group_size(i.attributes)
    share = {"all-gather": g - 1.0, "all-reduce": 2 * (g - 1) / g, "collective-permute": 1.0}
    channel = re.search(r"channel_id=(\d+)", i.attributes)
    key = channel.group(1) if channel else i.name
    return {(kind, key): Sent(1, size * share.get(kind, (g - 1) / g))}


def group_size(attributes: str) -> int:
    """Chips in each group of a collective, in any of the forms that XLA writes; 1 where none is.

    >>> group_size("replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}")
    4
    >>> group_size("replica_groups=[32,8]<=[8,32]T(1,0)")
    8
    >>> group_size("replica_groups=mesh['data'=4,'fsdp'=2] {'fsdp'}")
    2
    """
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if listed:
        return len(listed.group(1).split(","))
    iota = re.search(r"replica_groups=\[(\d+(?:,\d+)*)\]<=", attributes)
    if iota:
        return int(iota.group(1).split(",")[-1])
    mesh = re.search(r"replica_groups=[^\[\]{}]*\[([^\]]*)\][^{}]*\{([^}]*)\}", attributes)
    if not mesh:
        return 1
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh.group(1))}
    return math.prod(
        int(part) if part else sizes[name]
        for name, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh.group(2))
    )
