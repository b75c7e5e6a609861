"""Published peaks of TPU chips, and the least time that a program can take on one.

Sources, read 2026-11: https://docs.cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and .../v6e.
The interconnect's bandwidth is published for both directions together; half of it can leave a
chip. That of v4 isn't on its page: 6 links of 50 GB/s, as in Jouppi et al. 2023 (arXiv:2304.01433).
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One TPU chip, as its maker describes it.

    Attributes:
        name: as in the name of a topology, "v5e" in "v5e:16x16".
        flops: bfloat16 operations a second, a multiplication and an addition each.
        memory: bytes of high-bandwidth memory.
        usable: bytes of it that the compiler gives a program, as libtpu 0.0.52 says when it
            refuses one.
        bandwidth: bytes a second between that memory and the chip.
        links: bytes a second that can leave the chip, over all of its links.
        axes: of the grid that chips are wired in, 2 or 3.
    """

    name: str
    flops: float
    memory: int
    usable: int
    bandwidth: float
    links: float
    axes: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, 32 * GIB, int(30.75 * GIB), 1200e9, 300e9, 3),
        Chip("v5e", 197e12, 16 * GIB, int(15.75 * GIB), 819e9, 200e9, 2),
        Chip("v5p", 459e12, 95 * GIB, int(95.73 * GIB), 2765e9, 600e9, 3),
        Chip("v6e", 918e12, 32 * GIB, int(31.24 * GIB), 1638e9, 400e9, 2),
    )
}


@dataclass(frozen=True)
class Roofline:
    """The least seconds that a program takes, if only one thing kept it busy.

    Attributes:
        compute: of its operations at the peak.
        memory: of its bytes to and from memory.
        links: of the bytes that it sends to other chips.
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """The largest of the three: no run is faster; one that overlaps them badly is slower."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """Which one it is."""
        named = {"compute": self.compute, "memory": self.memory, "links": self.links}
        return max(named, key=lambda name: named[name])


def roofline(chip: Chip, flops: float, memory_bytes: float, sent_bytes: float) -> Roofline:
    """The roofline of a program that does this much on each chip.

    >>> roofline(CHIPS["v5e"], flops=197e12, memory_bytes=81.9e9, sent_bytes=0.0)
    Roofline(compute=1.0, memory=0.1, links=0.0)

    Source: Williams, Waterman & Patterson 2009, "Roofline", with the interconnect beside memory.
    """
    return Roofline(flops / chip.flops, memory_bytes / chip.bandwidth, sent_bytes / chip.links)


def chip_of(topology: str) -> Chip:
    """The chip that a topology such as "v5e:16x16" is made of.

    Raises:
        ValueError: the name isn't a chip and a grid of chips, or a grid that its wires don't make.
    """
    name, _, grid = topology.partition(":")
    chip, sizes = CHIPS.get(name), grid.split("x")
    if chip is None or not all(size.isdigit() and int(size) for size in sizes):
        raise ValueError(
            f"{topology!r} is no TPU topology; it is a chip ({', '.join(CHIPS)}) and a grid of "
            "them, such as v5e:16x16 or v4:2x2x4."
        )
    if len(sizes) != chip.axes:
        example = "16x16" if chip.axes == 2 else "4x4x4"
        raise ValueError(
            f"{topology!r} has {len(sizes)} axes, and {name} chips are wired in {chip.axes}; "
            f"write it as {name}:{example}."
        )
    return chip
