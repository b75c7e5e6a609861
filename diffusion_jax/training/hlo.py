"""What a compiled program says that it does, read from its text: `compiled.as_text()`.

A program is computations, and a computation is lines

    %name = type opcode(%operand, ...), attribute=value, ...

in the order in which they run. XLA's own cost analysis counts the body of a loop once; here it
counts as often as the loop runs (`costs.py`).

Source: https://openxla.org/xla/operation_semantics and the text itself.
"""

import functools
import math
import re
from dataclasses import dataclass

_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\](\{[^{}]*\})?")
_NAME = re.compile(r"%[\w.\-]+")
_HEAD = re.compile(r"(ENTRY\s+)?(%[\w.\-]+)\s.*\{\s*$")
_ROOT_LINE = re.compile(r"\s+(ROOT )?(%[\w.\-]+) = (.*)$")
_BITS = re.compile(r"[a-z]+(\d+)")


@dataclass(frozen=True)
class Shape:
    """An array's type.

    Attributes:
        dims: its sizes.
        bits: of an element.
        space: where it lies: 0 is the device's memory, others are closer to its arithmetic.
        stored: elements that it takes there, with those that fill up its tiles; 0 is its own.
    """

    dims: tuple[int, ...]
    bits: int
    space: int = 0
    stored: int = 0

    @property
    def bytes(self) -> float:
        """Of its elements."""
        return math.prod(self.dims) * self.bits / 8

    @property
    def memory_bytes(self) -> float:
        """Bytes in the device's memory, tiles filled up."""
        if self.space:
            return 0.0
        return (self.stored or math.prod(self.dims)) * self.bits / 8


@dataclass(frozen=True)
class Instruction:
    """One line.

    Attributes:
        name: with its %.
        shapes: of what it makes, one for each array.
        opcode: such as "fusion".
        operands: names; what isn't a name (numbers of a parameter or a constant) is `literal`.
        literal: the text between the parentheses.
        attributes: the text after them.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=(%[\w.\-]+)", self.attributes)
        return found.group(1) if found else None

    @property
    def bytes(self) -> float:
        return sum(shape.bytes for shape in self.shapes)

    @property
    def memory_bytes(self) -> float:
        return sum(shape.memory_bytes for shape in self.shapes)


@dataclass(frozen=True, eq=False)
class Computation:
    """Instructions by name, in order; `root` is the name of the one whose value it returns."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found[operand].append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """By their number."""
        return {int(i.literal): i for i in self.instructions.values() if i.opcode == "parameter"}


@dataclass(frozen=True, eq=False)
class Program:
    """Computations by name; `entry` is the name of the one that runs."""

    computations: dict[str, Computation]
    entry: str


def shapes_of(text: str) -> tuple[Shape, ...]:
    """The arrays of a type, in order; a tuple has several.

    >>> shapes_of("(f32[8,4]{1,0}, bf16[3]{0:T(256)S(1)})")[1]
    Shape(dims=(3,), bits=16, space=1, stored=256)
    """
    return tuple(_shape(*found) for found in _SHAPE.findall(text))


def _shape(dtype: str, dims: str, layout: str) -> Shape:
    bits = _BITS.match(dtype)
    space = re.search(r"S\((\d+)\)", layout)
    sizes = tuple(int(d.lstrip("<=")) for d in dims.split(",") if d)
    return Shape(
        sizes,
        8 if dtype == "pred" else int(bits.group(1)) if bits else 0,
        int(space.group(1)) if space else 0,
        _stored(sizes, layout),
    )


def _stored(sizes: tuple[int, ...], layout: str) -> int:
    """Elements of an array whose axes, {fastest, ..., slowest:T(tile)}, are filled up to tiles."""
    tiled = re.match(r"\{([\d,]*):T\(([\d,]+)\)", layout)
    if not tiled:
        return 0
    order = [int(axis) for axis in tiled.group(1).split(",") if axis]
    tile = [int(size) for size in tiled.group(2).split(",")]
    padded = list(sizes)
    for axis, size in zip(order, reversed(tile), strict=False):
        padded[axis] = -(-padded[axis] // size) * size
    return math.prod(padded)


def parse(text: str) -> Program:
    """A program from its text.

    Raises:
        ValueError: the text isn't that of one compiled program.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    body: dict[str, Instruction] = {}
    for line in text.splitlines():
        if not line[:1].isspace():
            head = _HEAD.match(line)
            if head:
                name, root, body = head.group(2), "", {}
                entry = name if head.group(1) else entry
            elif line.startswith("}") and name:
                computations[name] = Computation(name, body, root)
            continue
        found = _ROOT_LINE.match(line)
        if found and name:
            body[found.group(2)] = _instruction(found.group(2), found.group(3))
            root = found.group(2) if found.group(1) else root
    if entry not in computations:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY.")
    return Program(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    start = text.index("(", end)
    stop = _closing(text, start)
    inside = text[start + 1 : stop]
    return Instruction(
        name,
        shapes_of(text[:end]),
        text[end:start].strip(),
        tuple(_NAME.findall(inside)),
        inside,
        text[stop + 1 :],
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found.group() == "(" else -1
        if not depth:
            return found.start()
    raise ValueError(f"a line of the program's text doesn't end: {text[:80]!r}.")


def trip_count(program: Program, loop: Instruction) -> int:
    """How often a `while` runs: as XLA says, else by its condition `i < n`; 1 where neither tells.

    The counter of such a condition starts at 0 and rises by 1, as in JAX's scans.
    """
    known = re.search(r'known_trip_count"?[:=]\{"?n"?[:=]"?(\d+)', loop.attributes)
    if known:
        return int(known.group(1))
    condition = program.computations[loop.called("condition") or ""]
    test = condition.instructions[condition.root]
    if test.opcode == "fusion":  # whose arguments are the counter and, often, the bound
        return _fused_trip_count(program, condition, test)
    return _compared(condition, test, {}) or 1


def _fused_trip_count(program: Program, condition: Computation, test: Instruction) -> int:
    inner = program.computations[test.called("calls") or ""]
    outside = {
        p.name: condition.instructions[test.operands[number]]
        for number, p in inner.parameters.items()
    }
    return _compared(inner, inner.instructions[inner.root], outside) or 1


def _compared(
    inside: Computation, test: Instruction, outside: dict[str, Instruction]
) -> int | None:
    if test.opcode != "compare" or "direction=LT" not in test.attributes:
        return None
    bound = inside.instructions[test.operands[1]]
    bound = outside.get(bound.name, bound)
    constant = bound.opcode == "constant" and bound.literal.lstrip("-").isdigit()
    return max(int(bound.literal), 0) if constant else None
