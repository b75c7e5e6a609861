"""Conditions that are pictures, concatenated to x's channels: maps, masks, grey, edges, small ones.

Each is a `Conditioning`; the null condition is a picture of zeros, which none of them is.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.checks import check_between
from diffusion_jax.corruptions import Corruption
from diffusion_jax.models.conditioning import Conditioning, Joined, Known, array
from diffusion_jax.processes import expand
from diffusion_jax.random import example_keys, normal, uniform
from diffusion_jax.types import Batch, Condition, Index, Key


@dataclass(frozen=True)
class Segmentation(Conditioning):
    """`segmentation` [b h w], a class for each pixel, as one-hot `Condition.image`.

    Attributes:
        classes: of a pixel.
        drop: as in `Conditioning`.
        factor: for a model of latents, how much smaller these are: of each square of pixels it's
            told the classes' shares.
    """

    classes: int
    drop: float = 0.1
    factor: int = 1
    features = ("segmentation",)

    def condition(self, known: Known) -> Condition:
        shares = jax.nn.one_hot(known["segmentation"], self.classes)
        return Condition(image=shrink(shares, self.factor))

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"segmentation": jnp.zeros(shape[:3], jnp.int32)}

    def check(self, known: Known) -> None:
        found = array(known, "segmentation", "b h w", integers=True)
        wrong = sorted({int(v) for v in found.ravel()} - set(range(self.classes)))
        if wrong:
            raise ValueError(
                f"the segmentation map has the class {wrong[0]}; this model knows "
                f"0..{self.classes - 1}."
            )


class _OfPicture(Conditioning):
    """What is computed from a reference picture, "image" [b h w c] in [-1, 1]."""

    features = ()

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        return {"image": batch["image"]}

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"image": jnp.zeros(shape)}

    def check(self, known: Known) -> None:
        array(known, "image", "b h w c")


@dataclass(frozen=True)
class Grey(_OfPicture):
    """The mean of a picture's channels [b h w 1], for colourisation, and a channel of ones.

    The ones tell null, all zeros, from a picture of middle grey.

    Attributes:
        drop: as in `Conditioning`.
    """

    drop: float = 0.1

    def condition(self, known: Known) -> Condition:
        grey = jnp.asarray(known["image"]).mean(axis=-1, keepdims=True)
        return Condition(image=jnp.concatenate([grey, jnp.ones_like(grey)], axis=-1))


@dataclass(frozen=True)
class Edges(_OfPicture):
    """The Sobel gradient's length of a picture's grey [b h w 1], and a channel of ones.

    Attributes:
        drop: as in `Conditioning`.
    """

    drop: float = 0.1

    def condition(self, known: Known) -> Condition:
        edges = sobel(jnp.asarray(known["image"]).mean(axis=-1, keepdims=True))
        return Condition(image=jnp.concatenate([edges, jnp.ones_like(edges)], axis=-1))


@dataclass(frozen=True)
class Inpainting(Conditioning):
    """A picture with a hole, and the mask of what is known: `Condition.image` [b h w c + 1].

    "image" [b h w c] in [-1, 1] and "mask" [b h w 1], 1 where it is known. Training cuts one box
    from each picture, of a height and width from `least` to `most` of its own. Null is a picture
    of which nothing is known. A model of latents is told "masked", those of the picture without
    the hole.

    Attributes:
        least, most: height and width of the box, as fractions of the picture's.
        drop: as in `Conditioning`.

    Source: Nichol et al. 2021 (arXiv:2112.10741), section 2.4, who train with random holes.
    """

    least: float = 0.25
    most: float = 0.75
    drop: float = 0.1
    features = ()

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise ValueError(
                f"Inpainting cuts boxes from least = {self.least} to most = {self.most}; they must "
                "satisfy 0 <= least <= most <= 1."
            )

    def check(self, known: Known) -> None:
        image = array(known, "image", "b h w c")
        b, h, w, _ = image.shape
        check_between("the mask", array(known, "mask", f"{b} {h} {w} 1"), 0.0, 1.0)

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        image = batch["image"]
        return {"image": image, "mask": self.masks(key, index, image.shape[1:3])}

    def masks(self, key: Key, index: Index, size: tuple[int, int]) -> Float[Array, "b h w 1"]:
        """1 outside a random box, example i's from fold_in(key, index[i])."""

        def inside(key: Key, length: int) -> Array:
            """Which of these pixels [b length] the box spans."""
            share, place = (
                uniform(jax.vmap(jax.random.fold_in, (0, None))(key, i)) for i in (0, 1)
            )
            span = jnp.round((self.least + (self.most - self.least) * share) * length)
            first = jnp.floor(place * (length - span + 1))
            pixel = jnp.arange(length, dtype=jnp.float32)[None, :]
            return (pixel >= first[:, None]) & (pixel < (first + span)[:, None])

        rows, columns = (
            inside(example_keys(jax.random.fold_in(key, axis), index), size[axis])
            for axis in (0, 1)
        )
        hole = rows[:, :, None] & columns[:, None, :]
        return 1.0 - hole[..., None].astype(jnp.float32)

    def condition(self, known: Known) -> Condition:
        mask = jnp.asarray(known["mask"], jnp.float32)
        masked = known["masked"] if "masked" in known else known["image"] * mask
        return Condition(image=jnp.concatenate([masked, mask], axis=-1))

    def blank(self, shape: tuple[int, ...]) -> Known:
        return {"image": jnp.zeros(shape), "mask": jnp.zeros((*shape[:3], 1))}


@dataclass(frozen=True)
class LowResolution(Conditioning):
    """A small picture, "low" [b h/factor w/factor c], enlarged as `Condition.image`, for cascades.

    Conditioning augmentation: training adds noise to the small picture, z = sqrt(1 - s^2) low +
    s noise with s ~ U[0, noise), and tells s, as `Condition.vector` [s, 1], so that a picture
    that an earlier stage drew, with its small faults, is no surprise. Sampling may do the same
    with `augment`; "level" [b] is s, 0 where it isn't known. A `corruption` comes before the
    noise wherever the small picture is made from a whole one, and isn't told.

    Attributes:
        factor: of height and width.
        noise: the largest s.
        drop: as in `Conditioning`; null is no picture and no level.
        corruption: such as `RandomBlur()`.
        enlarge: how much larger the small picture is made for the network; by default `factor`. For
            a model of latents, whose pictures are f times larger than these, factor / f.

    Source: Ho et al. 2021 (arXiv:2106.15282), section 4.2.
    """

    factor: int = 2
    noise: float = 0.5
    drop: float = 0.0
    corruption: Corruption | None = None
    enlarge: int | None = None
    features = ()

    def __post_init__(self) -> None:
        if self.factor < 1 or not 0 <= self.noise <= 1:
            raise ValueError(
                f"LowResolution has factor = {self.factor} and noise = {self.noise}; the factor is "
                "at least 1, and the noise from 0 to 1."
            )

    def check(self, known: Known) -> None:
        low = array(known, "low", "b h w c")
        if "level" in known:
            check_between("level", array(known, "level", f"{len(low)}"), 0.0, 1.0)

    def known(self, key: Key, index: Index, batch: Batch) -> Known:
        level = self.noise * uniform(example_keys(jax.random.fold_in(key, 0), index))
        low = shrink(jnp.asarray(batch["image"]), self.factor)
        if self.corruption is not None:
            low = self.corruption(example_keys(jax.random.fold_in(key, 2), index), low)
        return self.augment(jax.random.fold_in(key, 1), index, low, level)

    def augment(self, key: Key, index: Index, low: Array, level: Float[Array, " b"]) -> Known:
        """The small pictures with noise of level s in [0, 1), example i's from its own key."""
        s = expand(level, low)
        noise = normal(example_keys(key, index), low.shape[1:])
        return {"low": jnp.sqrt(1 - s**2) * low + s * noise, "level": level}

    def noised(self, key: Key, index: Index, known: Known, *, level: float) -> Known:
        """What is known, its small pictures with noise of one level for all, as sampling has it."""
        low = jnp.asarray(known["low"])
        return {**known, **self.augment(key, index, low, jnp.full(len(low), level))}

    def condition(self, known: Known) -> Condition:
        low = jnp.asarray(known["low"])
        b, h, w, c = low.shape
        level = jnp.asarray(known.get("level", jnp.zeros(b)))
        times = self.factor if self.enlarge is None else self.enlarge
        large = jax.image.resize(low, (b, times * h, times * w, c), "bilinear")
        return Condition(vector=jnp.stack([level, jnp.ones(b)], axis=-1), image=large)

    def blank(self, shape: tuple[int, ...]) -> Known:
        b, h, w, c = shape
        return {"low": jnp.zeros((b, h // self.factor, w // self.factor, c)), "level": jnp.zeros(b)}


def low_resolution(conditioning: Conditioning) -> LowResolution | None:
    """The conditioning, or the part of it, that is a small picture."""
    parts = conditioning.parts if isinstance(conditioning, Joined) else (conditioning,)
    return next((part for part in parts if isinstance(part, LowResolution)), None)


def shrink(image: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """The mean of each factor x factor block.

    Raises:
        ValueError: height or width isn't a multiple of the factor.
    """
    b, h, w, c = image.shape
    if h % factor or w % factor:
        raise ValueError(f"pictures of {h}x{w} can't be shrunk {factor} times.")
    return image.reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))


def sobel(grey: Float[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
    """The gradient's length, by Sobel's 3x3 differences over 8, edges repeated outside."""
    padded = jnp.pad(grey, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

    def smooth(x: Array, axis: int) -> Array:
        size = x.shape[axis] - 2
        before, here, after = (jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(3))
        return before + 2 * here + after

    def difference(x: Array, axis: int) -> Array:
        size = x.shape[axis] - 2
        return jax.lax.slice_in_dim(x, 2, 2 + size, axis=axis) - jax.lax.slice_in_dim(
            x, 0, size, axis=axis
        )

    down, across = (difference(smooth(padded, 3 - axis), axis) / 8 for axis in (1, 2))
    # A double where: the square root's slope at 0 is infinite.
    square = down**2 + across**2
    return jnp.where(square == 0, 0.0, jnp.sqrt(jnp.where(square == 0, 1.0, square)))
