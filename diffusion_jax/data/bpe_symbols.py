"""Bytes as printable symbols, and the merging of one word's symbols."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Mapping


def merged(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """One word's symbols with their pairs merged: lowest rank first, of equals the leftmost.

    Neighbours wait in a heap, so that n symbols take O(n log n).

    >>> merged(list("abab"), {("a", "b"): 0, ("ab", "ab"): 1})
    ['abab']
    """
    symbols = list(symbols)
    count = len(symbols)
    left, right = list(range(-1, count - 1)), list(range(1, count + 1))
    waiting = [
        (ranks[pair], i) for i, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks
    ]
    heapq.heapify(waiting)
    while waiting:
        rank, i = heapq.heappop(waiting)
        gone = right[i]
        # One of the two may have been merged since; what is gone is "", which is in no pair.
        if gone == count or ranks.get((symbols[i], symbols[gone])) != rank:
            continue
        symbols[i], symbols[gone] = symbols[i] + symbols[gone], ""
        right[i] = right[gone]
        if right[i] < count:
            left[right[i]] = i
        for at in (left[i], i):
            if at >= 0 and right[at] < count:
                pair = (symbols[at], symbols[right[at]])
                if pair in ranks:
                    heapq.heappush(waiting, (ranks[pair], at))
    return [symbol for symbol in symbols if symbol]


@functools.cache
def symbol_of_byte() -> tuple[str, ...]:
    """A printable character for each byte: itself where it is one, else 256, 257, ... in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(others)) for byte in range(256))


@functools.cache
def alphabet() -> tuple[str, ...]:
    """The same in the order of CLIP's vocabulary, where bytes that are printable come first."""
    return tuple(sorted(symbol_of_byte()))


@functools.cache
def byte_of_symbol() -> Mapping[str, int]:
    """The byte that each symbol stands for."""
    return {symbol: byte for byte, symbol in enumerate(symbol_of_byte())}
