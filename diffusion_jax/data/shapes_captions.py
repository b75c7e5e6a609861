"""The sentences of the shapes world: a grammar without ambiguity, written and read.

caption  =  thing [ "at the" position ]
         |  thing "and" thing  |  thing relation thing
         |  thing "," thing "and" thing  |  thing relation thing "," "with" thing
thing    =  "a" [ size ] colour shape
relation =  "above" | "below" | "left of" | "right of"
position =  ("top" | "bottom") ("left" | "right")
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
SHAPES = ("cube", "ball", "cone")
SIZES: Mapping[str, int] = {"small": 5, "large": 7}  # width and height, in sixteenths of a picture
RELATIONS = ("above", "below", "left of", "right of")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
VOCABULARY = (
    *("a", ",", "and", "with", "of", "at", "the"),
    *("above", "below", "left", "right", "top", "bottom"),
    *SIZES,
    *COLOURS,
    *SHAPES,
)


class Described(NamedTuple):
    """What a caption says of one object; `size` is None where it says nothing."""

    colour: str
    shape: str
    size: str | None = None


class Description(NamedTuple):
    """What a caption says: 1 to 3 objects, and at most one of the other two.

    `relation`, one of RELATIONS, is that of the first object to the second. `position`, one of
    POSITIONS, is said of a single object.
    """

    things: tuple[Described, ...]
    relation: str | None = None
    position: str | None = None


def write_caption(description: Description) -> str:
    """The caption of a description: lower-case words, and "," as a word of its own.

    Raises:
      ValueError: not 1 to 3 objects, a relation of a single object, a position of several, or a
        word outside the grammar.

    >>> write_caption(Description((Described("red", "cube"), Described("cyan", "ball")), "above"))
    'a red cube above a cyan ball'
    """
    things, relation, position = description
    if not 1 <= len(things) <= 3:
        raise ValueError(f"a caption describes 1, 2 or 3 objects, not {len(things)}")
    if relation is not None and len(things) == 1:
        raise ValueError(f"{relation!r} relates two objects, and the description has one")
    if position is not None and len(things) > 1:
        raise ValueError(f"a position is said of one object, and there are {len(things)}")
    if relation is not None:
        _require("relation", relation, RELATIONS)
    if position is not None:
        _require("position", position, POSITIONS)
    first, *others = (_phrase(*thing) for thing in things)
    if not others:
        return f"{first} at the {position}" if position else first
    if relation:
        return " , with ".join([f"{first} {relation} {others[0]}", *others[1:]])
    return f"{' , '.join([first, *others[:-1]])} and {others[-1]}"


def parse_caption(caption: str) -> Description:
    """The description that a caption was written from: the inverse of `write_caption`.

    Spaces may be left out around commas, and doubled.

    Raises:
      ValueError: the caption is outside the grammar; the message names the first word that doesn't
        fit, and what may stand there.

    >>> parse_caption("a red cube , a blue ball and a small cyan cone").things[2]
    Described(colour='cyan', shape='cone', size='small')
    """
    words = _Reader(caption)
    things = [words.thing()]
    relation = position = None
    match words.take("and", ",", "at", "above", "below", "left", "right", _END):
        case "and":
            things.append(words.thing())
        case ",":
            things.append(words.thing())
            words.take("and")
            things.append(words.thing())
        case "at":
            words.take("the")
            position = f"{words.take('top', 'bottom')} {words.take('left', 'right')}"
        case "above" | "below" | "left" | "right" as word:
            relation = word if word in RELATIONS else f"{word} {words.take('of')}"
            things.append(words.thing())
            if words.take(",", _END) == ",":
                words.take("with")
                things.append(words.thing())
    words.take(_END)
    return Description(tuple(things), relation, position)


_END = ""


class _Reader:
    def __init__(self, caption: str):
        self._caption = caption
        self._words = caption.replace(",", " , ").split()
        self._next = 0

    def take(self, *choices: str) -> str:
        """The next word, which must be one of the choices; the end of the caption stays there."""
        word = self._words[self._next] if self._next < len(self._words) else _END
        if word not in choices:
            found = repr(word) if word else "the end"
            place = f"after {self._words[self._next - 1]!r}" if self._next else "at the beginning"
            raise ValueError(
                f"caption {self._caption!r} can't be read: {place} comes {_either(choices)}, "
                f"not {found}"
            )
        self._next += word != _END
        return word

    def thing(self) -> Described:
        self.take("a")
        word = self.take(*SIZES, *COLOURS)
        size = word if word in SIZES else None
        colour = self.take(*COLOURS) if size else word
        return Described(colour, self.take(*SHAPES), size)


def _phrase(colour: str, shape: str, size: str | None) -> str:
    _require("colour", colour, COLOURS)
    _require("shape", shape, SHAPES)
    if size is None:
        return f"a {colour} {shape}"
    _require("size", size, SIZES)
    return f"a {size} {colour} {shape}"


def _require(what: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        raise ValueError(f"a {what} is {_either(known)}, not {word!r}")


def _either(choices: Collection[str]) -> str:
    shown = [repr(choice) if choice else "the end" for choice in choices]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
