"""Conditions: what is known of a picture, in the form that networks read.

A `Conditioning` is a value with these functions:

    known(key, index, batch)    a training batch -> what sampling would be told of it
    condition(known)            -> Condition, the network's
    null(known)                 -> Condition, with what training drops dropped
    blank(shape)                -> what there is to know, all zeros, for pictures of this shape

Training calls it, (key, index, batch) -> Condition, and each example loses its condition with
probability `drop`. Learned encoders of text and layouts are layers of the network
(`encoders.py`), so raw token numbers and boxes are what is dropped here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffusion_jax.conditions import drop_condition
from diffusion_jax.types import Batch, Condition, Index, Key

Known = Mapping[str, Any]  # name -> array [b ...]
# Streams of the key beside those of the examples' droppings.
_KNOWN = 2**32 - 6
_ALL = 2**32 - 9


@runtime_checkable
class Conditioning(Protocol):
    """See the module. A subclass says `condition` and `blank`, and what differs of the rest.

    Attributes:
        drop: probability that training sees null instead (classifier-free guidance).
        features: what it reads of a record beside the image.
    """

    @property
    def drop(self) -> float: ...
    @property
    def features(self) -> tuple[str, ...]: ...
    def condition(self, known: Known) -> Condition: ...
    def blank(self, shape: tuple[int, ...]) -> Known: ...

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        """What sampling would be told of these examples: their features."""
        return {name: batch[name] for name in self.features}

    def null(self, known: Known) -> Condition:
        """Zeros; where training drops nothing, the condition itself."""
        condition = self.condition(known)
        return jax.tree.map(jnp.zeros_like, condition) if self.drop else condition

    def __call__(self, key: Key, index: Index, batch: Batch) -> Condition:
        """The batch's condition in training, dropped for each example by itself."""
        known = self.known(jax.random.fold_in(key, _KNOWN), index, batch)
        condition = self.condition(known)
        if not self.drop:
            return condition
        return drop_condition(key, index, condition, self.null(known), self.drop)

    def check(self, known: Known) -> None:
        """Raises ValueError for what the network wasn't made for; on the host."""
        return None

    def check_source(self, name: str, classes: int | None) -> None:
        """Raises ValueError for data of other classes than the network's."""
        return None


def array(known: Known, name: str, dims: str, *, integers: bool = False) -> np.ndarray:
    """What is known under this name, as a NumPy array.

    Args:
        known: what a model is told.
        name: of the feature.
        dims: a word for each dimension, such as "b n 4"; a number is its size.
        integers: whether it holds integers, else real numbers.

    Raises:
        ValueError: there is none, or it is another kind of array.
    """
    if name not in known:
        raise ValueError(f"this model has to be told {name!r} of every picture.")
    found, words = np.asarray(known[name]), dims.split()
    sizes = zip(found.shape, words, strict=False)
    fits = found.ndim == len(words) and all(not w.isdigit() or int(w) == n for n, w in sizes)
    if not fits or integers != np.issubdtype(found.dtype, np.integer):
        kind = "integers" if integers else "real numbers"
        raise ValueError(
            f"{name} is {found.dtype} of shape {found.shape}; it must be {kind}, [{dims}]."
        )
    return found


@dataclass(frozen=True)
class ClassLabels(Conditioning):
    """`label` [b] as one-hot `Condition.vector`; the null condition is the zero vector.

    The U-Net's projection of a one-hot vector is a learned embedding for each class, and its
    bias a learned one for null.

    Attributes:
        classes: number of classes; 0 is unconditional, and gives empty conditions.
        drop: as in `Conditioning`.
    """

    classes: int
    drop: float = 0.1

    @property
    def features(self) -> tuple[str, ...]:
        return ("label",) if self.classes else ()

    def condition(self, known: Known) -> Condition:
        """label [b] -> vector [b classes]; -1 is null."""
        if not self.classes:
            return Condition()
        return Condition(vector=jax.nn.one_hot(known["label"], self.classes))

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"label": jnp.zeros(shape[0], jnp.int32)}

    def check_source(self, name: str, classes: int | None) -> None:
        if self.classes and classes != self.classes:
            raise ValueError(
                f"{name} has {classes} classes, and the recipe expects {self.classes}."
            )

    def check(self, known: Known) -> None:
        if not self.classes and "label" not in known:
            return
        label = array(known, "label", "b", integers=True)
        wrong = sorted({int(v) for v in label if not -1 <= v < self.classes})
        if wrong and self.classes:
            raise ValueError(
                f"label {wrong[0]} is out of range: this model knows 0..{self.classes - 1} "
                "(and -1, none)."
            )
        if wrong:
            raise ValueError(f"label {wrong[0]} was asked for, but this model knows no labels.")


@dataclass(frozen=True)
class Attributes(Conditioning):
    """`attributes` [b count], real numbers, as `Condition.vector` with a last entry of 1.

    That entry tells null, which is all zeros, from attributes that are 0.

    Attributes:
        count: of numbers for each picture.
        drop: as in `Conditioning`.
        name: of the feature.
    """

    count: int
    drop: float = 0.1
    name: str = "attributes"

    @property
    def features(self) -> tuple[str, ...]:
        return (self.name,)

    def condition(self, known: Known) -> Condition:
        values = jnp.asarray(known[self.name], jnp.float32)
        return Condition(vector=jnp.pad(values, ((0, 0), (0, 1)), constant_values=1.0))

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {self.name: jnp.zeros((shape[0], self.count))}

    def check(self, known: Known) -> None:
        if not np.isfinite(array(known, self.name, f"b {self.count}")).all():
            raise ValueError(f"{self.name} must be finite numbers.")


@dataclass(frozen=True)
class Layout(Conditioning):
    """`boxes` [b n 4] and `box_label` [b n] as `Condition.tokens` [b n 4 + classes] with a mask.

    For a learned encoder, which adds what null is made of. Null has no boxes.

    Attributes:
        boxes: n, the most boxes of a picture; the label of one that isn't there is -1.
        classes: labels of a box.
        drop: as in `Conditioning`.
        grid: corners are rounded to multiples of 1 / grid; 0 leaves them. Where all of the data
            lie on a grid, a network has never seen what is off it.
    """

    boxes: int
    classes: int
    drop: float = 0.1
    grid: int = 0
    features = ("boxes", "box_label")

    def condition(self, known: Known) -> Condition:
        label = jnp.asarray(known["box_label"])
        corners = self._rounded(jnp.asarray(known["boxes"], jnp.float32))
        tokens = jnp.concatenate([corners, jax.nn.one_hot(label, self.classes)], axis=-1)
        return Condition(tokens=tokens, mask=label >= 0)

    def blank(self, shape: tuple[int, ...]) -> Known:
        b, n = shape[0], self.boxes
        return {"boxes": jnp.zeros((b, n, 4)), "box_label": jnp.zeros((b, n), jnp.int32)}

    def check(self, known: Known) -> None:
        label = array(known, "box_label", f"b {self.boxes}", integers=True)
        boxes = array(known, "boxes", f"{len(label)} {self.boxes} 4")
        for wrong in label[(label < -1) | (label >= self.classes)][:1]:
            raise ValueError(
                f"box_label {wrong} is out of range: this model knows 0..{self.classes - 1} (and "
                "-1, no box)."
            )
        first, last = np.split(np.asarray(self._rounded(boxes)), 2, axis=-1)
        fits = ((first >= 0) & (first < last) & (last <= 1)).all(-1)
        for wrong in boxes[(label >= 0) & ~fits][:1]:
            grid = f", on a grid of 1/{self.grid}" if self.grid else ""
            raise ValueError(
                f"the box {' '.join(f'{v:g}' for v in wrong)} must have 0 <= X0 < X1 <= 1 and "
                f"0 <= Y0 < Y1 <= 1{grid}."
            )

    def _rounded(self, corners: Any) -> Any:
        return (corners * self.grid).round() / self.grid if self.grid else corners


@dataclass(frozen=True)
class Joined(Conditioning):
    """Several conditionings of one network, each dropped by itself, with its own probability.

    Vectors and images are joined along their channels; at most one may have tokens.

    Attributes:
        parts: the conditionings.
        together: probability that all are dropped, beside that: guidance begins at the network
            that is told nothing, which parts that are dropped by themselves seldom leave.
    """

    parts: tuple[Conditioning, ...]
    together: float = 0.0

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("Joined has no parts; it takes at least one conditioning.")

    @property
    def drop(self) -> float:
        """The largest of them."""
        return max(self.together, *(part.drop for part in self.parts))

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.features)

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        keys = jax.random.split(key, len(self.parts))
        parts = zip(keys, self.parts, strict=True)
        return _merged([part.known(k, index, batch) for k, part in parts])

    def condition(self, known: Known) -> Condition:
        return join([part.condition(known) for part in self.parts])

    def null(self, known: Known) -> Condition:
        return join([part.null(known) for part in self.parts])

    def blank(self, shape: tuple[int, ...]) -> Known:
        return _merged([part.blank(shape) for part in self.parts])

    def __call__(self, key: Key, index: Index, batch: Batch) -> Condition:
        keys = jax.random.split(key, len(self.parts))
        told = join([part(k, index, batch) for k, part in zip(keys, self.parts, strict=True)])
        if not self.together:
            return told
        null = self.null(self.known(jax.random.fold_in(key, _KNOWN), index, batch))
        return drop_condition(jax.random.fold_in(key, _ALL), index, told, null, self.together)

    def check(self, known: Known) -> None:
        for part in self.parts:
            part.check(known)

    def check_source(self, name: str, classes: int | None) -> None:
        for part in self.parts:
            part.check_source(name, classes)


def join(conditions: list[Condition]) -> Condition:
    """One Condition of several: vectors and images joined along their channels.

    Raises:
        ValueError: more than one has tokens.
    """

    def joined(name: str) -> Array | None:
        values = [v for v in (getattr(c, name) for c in conditions) if v is not None]
        if len(values) > 1 and name in ("tokens", "mask"):
            raise ValueError("at most one of the conditions that are joined may have tokens.")
        return jnp.concatenate(values, axis=-1) if values else None

    return Condition(*(joined(name) for name in Condition._fields))


def _merged(parts: list[Known]) -> Known:
    return {name: value for part in parts for name, value in part.items()}
