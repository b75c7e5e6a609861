"""Where sampling's x_1 comes from: white noise, corrupted pictures, or a fit of them.

A terminal is a value with three functions. `check` refuses, before any work, a process that it
doesn't go with. `prepare` reads what it needs from the data, once, on the host. `draw` is jitted,
and makes x_1 of example i from the key and i alone, so that a picture is the same in any batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from diffusion_jax.data import Source
from diffusion_jax.editing import renoise
from diffusion_jax.processes import Cold
from diffusion_jax.random import example_keys, normal, uniform
from diffusion_jax.samplers import draw_prior
from diffusion_jax.types import Index, Key, Process

Label = Int[Array, " b"]

# Streams of the key beside draw_prior's, 2^32 - 1, and renoise's, 2^32 - 4: no step of a grid has
# these numbers.
_CHOICE, _NOISE = 2**32 - 2, 2**32 - 3


@runtime_checkable
class Terminal(Protocol):
    """Draws x_1, and says which process the examples follow from there."""

    def check(self, process: Process) -> None:
        """Raises ValueError where x_1 of this process can't come from here."""
        ...

    def prepare(self, source: Callable[[], Source]) -> Any:
        """Arrays for `draw`."""
        ...

    def draw(
        self, arrays: Any, process: Process, key: Key, index: Index, label: Label, shape: tuple
    ) -> tuple[Array, Process]:
        """x_1 [b *shape] in the process's coordinates, and the process of these examples."""
        ...


class Pictures(NamedTuple):
    """Training pictures on the device.

    Attributes:
        image: [n h w c] in [-1, 1].
        label: [n], -1 where there are none.
    """

    image: Array
    label: Array


@dataclass(frozen=True)
class FromNoise:
    """x_1 = process.prior(white noise)."""

    def check(self, process: Process) -> None:
        process.prior(jnp.zeros(1))

    def prepare(self, source: Callable[[], Source]) -> tuple[()]:
        return ()

    def draw(self, arrays, process, key, index, label, shape):
        return draw_prior(key, process, (index.shape[0], *shape), index=index), process


@dataclass(frozen=True)
class FromData:
    """x_1 = corrupt(a training picture, white noise, 1): heat, and blur with little noise.

    With the noise that training gave x_1; a random degradation starts from `Degraded`.

    Attributes:
        count: pictures to choose from, evenly from all of the training set; one of the wanted
            label where there is a label.
    """

    count: int = 1024

    def check(self, process: Process) -> None:
        _check_not_random(process, self)

    def prepare(self, source: Callable[[], Source]) -> Pictures:
        return read_pictures(source(), self.count)

    def draw(self, arrays, process, key, index, label, shape):
        x0 = process.encode(choose(arrays, key, index, label))
        return process.corrupt(x0, _white(key, index, shape), _ones(index)), process


@dataclass(frozen=True)
class Degraded:
    """x_1 = D(a training picture, noise, 1) for `Cold`, which is told the noise of each example.

    Attributes:
        count: as in `FromData`.
    """

    count: int = 1024

    def check(self, process: Process) -> None:
        if not isinstance(process, Cold):
            raise ValueError(f"Degraded() starts cold diffusion, and {process} isn't Cold(...).")

    def prepare(self, source: Callable[[], Source]) -> Pictures:
        return read_pictures(source(), self.count)

    def draw(self, arrays, process, key, index, label, shape):
        noise = _white(key, index, shape)
        x0 = choose(arrays, key, index, label)
        return process.corrupt(x0, noise, _ones(index)), replace(process, noise=noise)


@dataclass(frozen=True)
class AnotherPicture:
    """x_1 = process.prior(a training picture of any label): animorph.

    Attributes:
        count: as in `FromData`.
    """

    count: int = 1024

    def check(self, process: Process) -> None:
        process.prior(jnp.zeros(1))

    def prepare(self, source: Callable[[], Source]) -> Pictures:
        return read_pictures(source(), self.count)

    def draw(self, arrays, process, key, index, label, shape):
        anything = jnp.full_like(label, -1)
        return process.prior(process.encode(choose(arrays, key, index, anything))), process


@dataclass(frozen=True, eq=False)
class FromImage:
    """x at t = strength from one picture, with noise: where image-to-image begins.

    Attributes:
        image: () -> [h w c] in [-1, 1]; of a model of latents, the picture's.
        strength: the first time of the grid.
    """

    image: Callable[[], np.ndarray] = field(repr=False)
    strength: float

    def check(self, process: Process) -> None:
        _check_not_random(process, self)

    def prepare(self, source: Callable[[], Source]) -> Array:
        return jnp.asarray(self.image())

    def draw(self, arrays, process, key, index, label, shape):
        image = jnp.broadcast_to(arrays[None], (index.shape[0], *shape))
        return renoise(key, process, image, self.strength, index=index), process


class Colours(NamedTuple):
    """A Gaussian mixture of colours: weights [k], means [k c], roots of covariances [k c c]."""

    weight: Array
    mean: Array
    root: Array


@dataclass(frozen=True)
class FittedColours:
    """x_1 = one colour, from a Gaussian mixture of the training pictures' mean colours.

    It is what a wide blur leaves: `Cold(GaussianBlur(...))`.

    Attributes:
        components: of the mixture.
        noise: added to break the symmetry of a picture of one colour, from which a restoration
            would always make the same one.
        count: pictures to fit, evenly from all of the training set.

    Source: Bansal et al. 2022 (arXiv:2208.09392), section 5.
    """

    components: int = 1
    noise: float = 0.002
    count: int = 1024

    def check(self, process: Process) -> None:
        _check_not_random(process, self)

    def prepare(self, source: Callable[[], Source]) -> Colours:
        from sklearn.mixture import GaussianMixture

        colours = np.asarray(read_pictures(source(), self.count).image, np.float64).mean((1, 2))
        fit = GaussianMixture(self.components, random_state=0).fit(colours)
        fitted = fit.weights_, fit.means_, np.linalg.cholesky(fit.covariances_)
        return Colours(*(jnp.asarray(v, jnp.float32) for v in fitted))

    def draw(self, arrays, process, key, index, label, shape):
        keys = example_keys(jax.random.fold_in(key, _CHOICE), index)
        below = jnp.cumsum(arrays.weight)[None, :-1] < uniform(keys)[:, None]
        which = below.sum(1)
        z = normal(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), shape[-1:])
        colour = arrays.mean[which] + jnp.einsum("bij,bj->bi", arrays.root[which], z)
        x = colour[:, None, None, :] + self.noise * _white(key, index, shape)
        return process.encode(x), process


def read_pictures(source: Source, count: int) -> Pictures:
    """`count` of the source's pictures, evenly from all of it; all of them if there are fewer."""
    numbers = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round())
    records = [source[int(i)] for i in numbers]
    image = np.stack([record["image"] for record in records]).astype(np.float32) / 127.5 - 1
    label = np.array([record.get("label", -1) for record in records], np.int32)
    return Pictures(jnp.asarray(image), jnp.asarray(label))


def choose(pictures: Pictures, key: Key, index: Index, label: Label) -> Array:
    """A picture for each example [b h w c], of its label where there are such pictures."""
    keys = example_keys(jax.random.fold_in(key, _CHOICE), index)
    rank = jax.vmap(lambda key: jax.random.uniform(key, pictures.label.shape))(keys)
    fits = pictures.label[None, :] == label[:, None]
    return pictures.image[jnp.argmax(rank + fits, axis=1)]


def _check_not_random(process: Process, terminal: object) -> None:
    if isinstance(process, Cold) and process.degradation.random:
        raise ValueError(
            f"{process} is random, and {terminal} doesn't tell it its noise; use Degraded()."
        )


def _white(key: Key, index: Index, shape: tuple) -> Array:
    return normal(example_keys(jax.random.fold_in(key, _NOISE), index), tuple(shape))


def _ones(index: Index) -> Array:
    return jnp.ones(index.shape)
