"""Aliases and Protocols: the words that the rest of the library is written in.

Time runs from 0 (data) to 1 (prior). Images are NHWC. Nothing here computes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, PyTree

Scalar = Any  # a float, or the traced scalar that stands for one

Time = Float[Array, " b"]  # 0 data, 1 prior
Index = Int[Array, " b"]  # global example numbers
Key = jax.Array  # a typed key: jax.random.key(seed)
Params: TypeAlias = PyTree
Extra: TypeAlias = PyTree  # what a loss carries from step to step; () for most
Batch = Mapping[str, Any]  # "image" [b h w c] in [-1, 1], "label" [b], ...
Metrics = Mapping[str, Any]  # name -> scalar


class Prediction(NamedTuple):
    """What a denoiser knows about x_t; for Gaussian processes x = alpha x0 + sigma noise.

    Attributes:
        x0: the clean example, in the process's coordinates, the shape of x.
        noise: the noise that goes with it, the shape of x.
        variance: learned variance, as the fraction from the log posterior (0) to the log
            transition variance (1); None where the network predicts none.
    """

    x0: Array
    noise: Array
    variance: Array | None = None


class Condition(NamedTuple):
    """One field for each way into a network; None is absent (static under jit).

    Attributes:
        vector: [b d], joins the time embedding: class, pooled text, image embedding.
        tokens: [b n d], read by cross-attention: text, layout boxes.
        mask: [b n] bool, which tokens are real.
        image: [b h w c], concatenated to x's channels: low resolution, masked image.
    """

    vector: Array | None = None
    tokens: Array | None = None
    mask: Array | None = None
    image: Array | None = None


Network = Callable[[Array, Time], Array]  # (x, t) -> y, in pixels
Denoiser = Callable[[Array, Time], Prediction]
Apply = Callable[..., Array]  # (params, x, t, condition, *, key=None) -> y
Loss = Callable[[Params, Extra, Key, Batch], tuple[Array, tuple[Metrics, Extra]]]


class Model(NamedTuple):
    """A network as two pure functions, whatever library wrote it.

    Attributes:
        init: (key, x, t, condition) -> params.
        apply: (params, x, t, condition, *, key=None) -> y; a key switches dropout on.
    """

    init: Callable[..., Params]
    apply: Apply


@runtime_checkable
class Schedule(Protocol):
    """alpha(t) and sigma(t) of x_t = alpha x_0 + sigma noise; frozen, compared by value."""

    def alpha(self, t: Array) -> Array: ...
    def sigma(self, t: Array) -> Array: ...


@runtime_checkable
class Process(Protocol):
    """How data turns into noise, in coordinates of its own."""

    def encode(self, pixels: Array) -> Array: ...
    def decode(self, x: Array) -> Array: ...
    def prior(self, noise: Array) -> Array: ...
    def corrupt(self, x0: Array, noise: Array, t: Time) -> Array: ...
    def solve(self, x: Array, t: Time, y: Array, a: Array, b: Array) -> Prediction: ...
    def complete(self, x: Array, t: Time, x0: Array) -> Prediction: ...


@runtime_checkable
class GaussianProcess(Process, Protocol):
    """A process with x_t = alpha x_0 + sigma noise, per example or per frequency."""

    def scales(self, t: Time, x: Array) -> tuple[Array, Array]: ...
    def log_snr(self, t: Array) -> Array: ...
    def time_at(self, log_snr: Array) -> Array: ...


@runtime_checkable
class Parameterization(Protocol):
    """Names what a network predicts: y = a x0 + b noise.

    A subclass that predicts nothing else inherits `split`.
    """

    def coefficients(self, process: Any, t: Time, x: Array) -> tuple[Array, Array]: ...

    def split(self, answer: Array) -> tuple[Array, Array | None]:
        """The network's answer as y and, where it predicts one, its variance fraction."""
        return answer, None


@runtime_checkable
class Tokenizer(Protocol):
    """`encode(text)` is int32 [length] of numbers in [0, size), where 0 stands for no word."""

    @property
    def length(self) -> int: ...
    @property
    def size(self) -> int: ...
    def encode(self, text: str) -> Any: ...


@runtime_checkable
class Sampler(Protocol):
    """Moves x from t to s. A pytree: floats are leaves; ints, bools, callables static."""

    @property
    def draws(self) -> int: ...
    def init(self, x: Array, times: Array) -> PyTree: ...
    def step(
        self,
        x: Array,
        state: PyTree,
        t: Time,
        s: Time,
        denoiser: Denoiser,
        process: Any,
        noise: Callable[[Any], Array],
    ) -> tuple[Array, PyTree]: ...
