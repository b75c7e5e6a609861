"""The fields of a config.json of diffusers, read with care; what is wrong is said all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 2**20  # far beyond any network: keeps a wrong number from costing hours or all memory
_SHOWN = 80  # characters of a value, in a message


class Fields:
    """A config's fields, and the sentences that have been found against them.

    Where a field is wrong, its reader answers what diffusers takes where a config says nothing,
    and `check` raises at the end.

    Args:
        config: of config.json.
        kind: the class that it must be of.

    Raises:
        ValueError: it is of another class.
    """

    def __init__(self, config: Mapping[str, Any], kind: str) -> None:
        found = config.get("_class_name")
        if found != kind:
            raise ValueError(f"config.json is of a _class_name {found!r}, and {kind} is wanted.")
        self._config, self._kind = config, kind
        self._read: set[str] = set()
        self._problems: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or the default where it is absent."""
        self._read.add(name)
        return self._config.get(name, default)

    def wrong(self, name: str, value: Any, wanted: str) -> None:
        """Notes that a field must be something else."""
        shown = list(value) if isinstance(value, tuple) else value
        self._problems.append(f"{name} is {shown!r:.{_SHOWN}}, and must be {wanted}")

    def integer(self, name: str, default: int, *, least: int = 1) -> int:
        """An integer from `least` to a million."""
        value = self.get(name, default)
        if type(value) is int and least <= value <= LARGEST:
            return value
        self.wrong(name, value, f"an integer from {least} to {LARGEST}")
        return default

    def optional(self, name: str) -> int | None:
        """An integer from 1 to a million, or null."""
        return None if self.get(name) is None else self.integer(name, 1)

    def real(self, name: str, default: float) -> float:
        """A number from 0 to 1."""
        value = self.get(name, default)
        if type(value) in (int, float) and 0 <= value <= 1:
            return float(value)
        self.wrong(name, value, "a number from 0 to 1")
        return default

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name, default)
        if isinstance(value, bool):
            return value
        self.wrong(name, value, "true or false")
        return default

    def integers(self, name: str, default: int | Sequence[int], length: int) -> tuple[int, ...]:
        """An integer above 0 for each level, of a list or of one for all."""
        value = self.get(name, default)
        listed = list(value) if isinstance(value, list | tuple) else [value] * length
        if len(listed) == length and all(type(v) is int and 1 <= v <= LARGEST for v in listed):
            return tuple(listed)
        self.wrong(name, value, f"an integer above 0, or {length} of them, one for each block type")
        return (1,) * length

    def names(
        self, name: str, default: Sequence[str], known: Sequence[str], length: int | None = None
    ) -> tuple[str, ...]:
        """A list of known names."""
        value = self.get(name, list(default))
        right = isinstance(value, list | tuple) and len(value) > 0
        if right and all(v in known for v in value) and len(value) == (length or len(value)):
            return tuple(value)
        count = "" if length is None else f"{length} "
        self.wrong(name, value, f"a list of {count}names of {', '.join(known)}")
        return (known[0],) * (length or (len(value) if right else 1))

    def check(self, fixed: Mapping[str, Sequence[Any]], ignored: Sequence[str]) -> None:
        """Refuses all that was wrong, and fields that nobody has read.

        Args:
            fixed: fields that may have but these values.
            ignored: fields that don't matter.

        Raises:
            ValueError: any of it, all named.
        """
        for name, values in fixed.items():
            value = self.get(name, values[0])
            if value not in values:
                self.wrong(name, value, " or ".join(repr(v) for v in values))
        for name, value in self._config.items():
            if name in self._read or name in ignored or name.startswith("_"):
                continue
            if value is not None and value is not False:
                self.wrong(name, value, "absent: it isn't known here")
        if self._problems:
            listed = "".join(f"\n  {line};" for line in self._problems)
            raise ValueError(f"this {self._kind} can't be read:{listed[:-1]}.")
