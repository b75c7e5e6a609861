"""The figures of Ramesh et al. 2022 by models of emoji: python benchmarks/unclip_figures.py
runs/emoji_decoder --prior runs/emoji_prior --upsampler runs/emoji_upsampler

Every picture is drawn by the models, the ones that are varied and turned too: those come from
prompts. The figures' numbers are the paper's:

    3 variations        4 interpolations      5 text differences    6 words written on pictures
    7 principal components                    8 text alone, z_t and the prior as conditions
    14 binding, 15 what embeddings keep of it (with --shapes and --shapes-prior)     16 signs
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from unclip_runs import Clip, clip_of, decoded, from_prior, load_decoder  # noqa: E402

from diffusion_jax.data import grid, save_png, subtitled, to_uint8, write  # noqa: E402
from diffusion_jax.models.image_conditioning import shrink  # noqa: E402
from diffusion_jax.quantization import fit_codes  # noqa: E402
from diffusion_jax.samplers import DDIM  # noqa: E402
from diffusion_jax.systems import (  # noqa: E402
    Prompts,
    Stage,
    Unclip,
    ablation,
    attacked,
    interpolations,
    reconstructions,
    relations,
    text_difference,
)
from diffusion_jax.systems.unclip import Prior  # noqa: E402
from diffusion_jax.training.embeddings import embeddings  # noqa: E402
from diffusion_jax.training.stages import load_prior  # noqa: E402

PROMPTS = (
    "cat face, in noto style",
    "automobile, in noto style",
    "grinning face, in twemoji style",
)
PAIRS = ((0, 1), (2, 0))
EDITS = (
    ("cat face, in noto style", "tiger face, in noto style"),
    ("automobile, in noto style", "bus, in noto style"),
    ("grinning face, in twemoji style", "crying face, in twemoji style"),
)
WORDS = ("pizza", "heart", "fish")
SIGNS = ("stop sign, in noto style", "sign that says deep learning", "no entry sign")
CUBES = tuple(relations("a red cube", "a blue ball").values())
WIDE = 8


class Studio:
    """A chain whose steps are at hand.

    Attributes:
        clip: what made the embeddings.
        unclip: decoder and upsamplers.
        prior: of embeddings.
    """

    def __init__(
        self,
        decoder: Path,
        prior: Path,
        upsampler: tuple[Path, ...],
        steps: int,
        seed: int,
        data_dir: Path | None,
    ):
        self.clip: Clip = clip_of(decoder, data_dir)
        length = self.clip.task.length
        self.unclip = load_decoder(decoder, steps=steps, length=length, upsamplers=upsampler)
        self.prior: Prior = load_prior(prior, decoder=decoder, data_dir=data_dir)
        self.seed, self.data_dir = seed, data_dir
        plain = replace(self.unclip.decoder, guidance=None, sampler=DDIM())
        self.walking = replace(self.unclip, decoder=plain)
        self._invert, self._vary = jax.jit(Stage.invert), jax.jit(Unclip.variations)

    def of_texts(self, told: Prompts) -> np.ndarray:
        """z_i of texts, from the prior."""
        return from_prior(self.prior, told, seed=self.seed)

    def draw(self, z: Any, tokens: Any = None) -> np.ndarray:
        """Pictures of embeddings, in their order from one row of noises."""
        return decoded(self.unclip, z, tokens, seed=self.seed, batch_size=min(16, len(z)))

    def seen(self, pictures: np.ndarray) -> jax.Array:
        """z_i of pictures of any size that the CLIP's is a multiple of."""
        side = self.clip.task.image_shape[0]
        shape = (len(pictures), side, side, 3)
        return self.clip.images(np.asarray(jax.image.resize(pictures, shape, "bilinear")))

    def invert(self, pictures: np.ndarray, z: jax.Array) -> jax.Array:
        stage = self.walking.decoder
        small = shrink(jnp.asarray(pictures), pictures.shape[1] // stage.shape[0])
        return self._invert(stage, small, self.walking.known(z, None))

    def walk(self, z: jax.Array, x1: jax.Array) -> np.ndarray:
        """What DDIM leads to, without guidance and text."""
        return decoded(self.walking, z, start=x1, seed=self.seed, batch_size=len(z))

    def vary(self, picture: np.ndarray, z: jax.Array, count: int) -> np.ndarray:
        small = shrink(jnp.asarray(picture[None]), len(picture) // self.unclip.decoder.shape[0])
        key = jax.random.key(self.seed)
        return np.asarray(self._vary(self.walking, key, small, z, jnp.arange(count)))


def variations(studio: Studio, sources: np.ndarray) -> np.ndarray:
    """A row for each source, which comes first."""
    z = studio.seen(sources)
    rows = [[s[None], studio.vary(s, z[i : i + 1], WIDE - 1)] for i, s in enumerate(sources)]
    return np.concatenate([picture for row in rows for picture in row])


def between(studio: Studio, sources: np.ndarray) -> np.ndarray:
    """Two rows for each pair: the noises of both ends, and the first one's throughout."""
    z = studio.seen(sources)
    x1, weights, rows = studio.invert(sources, z), jnp.linspace(0.0, 1.0, WIDE), []
    for pair in PAIRS:
        ends = jnp.array(pair)
        for noises in (x1[ends], x1[ends[:1].repeat(2)]):
            rows.append(studio.walk(*interpolations(z[ends], noises, weights)))
    return np.concatenate(rows)


def edits(studio: Studio, sources: np.ndarray) -> np.ndarray:
    z = studio.seen(sources)
    x1, weights, rows = studio.invert(sources, z), jnp.linspace(0.0, 0.5, WIDE), []
    for i, texts in enumerate(EDITS):
        before, after = (jnp.repeat(t[None], WIDE, 0) for t in studio.clip.texts(list(texts)))
        one = jnp.repeat(z[i : i + 1], WIDE, axis=0)
        turned = text_difference(one, before, after, weights)
        rows.append(studio.walk(turned, jnp.repeat(x1[i : i + 1], WIDE, axis=0)))
    return np.concatenate(rows)


def attacks(studio: Studio, sources: np.ndarray) -> np.ndarray:
    """A row for each source: it, with a word, and variations of that; what CLIP says is below."""
    tiles, captions, side = [], [], studio.clip.task.image_shape[0]
    large = np.asarray(jax.image.resize(sources, (len(sources), side, side, 3), "bilinear"))
    for picture, prompt, word in zip(large, PROMPTS, WORDS, strict=True):
        told = write(to_uint8(picture), word, at=(2, side - 16), size=13, plate=(255, 255, 255))
        written = told.picture.astype(np.float32) / 127.5 - 1
        both = np.stack([picture, written])
        z, texts = studio.seen(both), studio.clip.texts([prompt.split(",")[0], word])
        chances = attacked(z, jnp.stack([texts, texts]))
        names = [f"{prompt.split(',')[0]} {a:.0%} {word} {b:.0%}" for a, b in chances]
        drawn = studio.vary(written, z[1:], WIDE - 2)
        drawn = np.asarray(jax.image.resize(drawn, (len(drawn), side, side, 3), "nearest"))
        tiles += [both, drawn]
        captions += [*names, *[""] * len(drawn)]
    whole = to_uint8(np.concatenate(tiles)).repeat(2, axis=1).repeat(2, axis=2)
    return grid(subtitled(whole, captions), columns=WIDE)


def components(studio: Studio, sources: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """A row for each source: its embedding from more and more components, one noise."""
    said = embeddings(studio.clip.run, "train", studio.data_dir).images
    codes = fit_codes(said, count=said.shape[1])
    rows = []
    for i, z in enumerate(reconstructions(codes, studio.seen(sources), counts)):
        x1 = jax.random.normal(jax.random.key(i), (1, *studio.unclip.decoder.shape))
        rows.append(studio.walk(z, jnp.repeat(x1, len(counts), axis=0)))
    return np.concatenate(rows)


def conditions(studio: Studio, prompts: tuple[str, ...]) -> np.ndarray:
    """Three rows for each prompt: the text alone, z_t in place of z_i, and the prior's z_i."""
    rows, key = [], jax.random.key(studio.seed)
    whole = replace(studio.unclip, prior=studio.prior)
    draw = jax.jit(ablation)
    for prompt in prompts:
        rows += draw(whole, key, studio.clip.told([prompt] * WIDE), jnp.arange(WIDE)).values()
    return np.concatenate(rows)


def binding(studio: Studio) -> tuple[np.ndarray, np.ndarray]:
    """Figures 14 and 15: from texts, alone and by the prior; and from embeddings of pictures."""
    asked, kept = [], []
    for prompt in CUBES:
        told = studio.clip.told([prompt] * WIDE)
        alone = studio.draw(np.zeros_like(told.embedding), told.tokens)
        asked += [alone, studio.draw(studio.of_texts(told))]
        kept += [alone[:1], studio.draw(jnp.repeat(studio.seen(alone[:1]), WIDE - 1, axis=0))]
    return np.concatenate(asked), np.concatenate(kept)


def main(
    decoder: tyro.conf.Positional[Path],
    prior: Path,
    upsampler: tuple[Path, ...] = (),
    shapes: Path | None = None,
    shapes_prior: Path | None = None,
    steps: int = 50,
    seed: int = 0,
    data_dir: Path | None = None,
    out: Path = Path("docs/unclip"),
) -> None:
    """Writes the figures.

    Args:
        decoder: a run of configs/emoji_decoder.py.
        prior: of either kind.
        upsampler: runs of upsamplers.
        shapes: a decoder of shapes.
        shapes_prior: its prior.
        steps: of the decoder's sampler.
        seed: of the noise.
        data_dir: folder of prepared TFDS sets.
        out: the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    studio = Studio(decoder, prior, upsampler, steps, seed, data_dir)
    told = studio.clip.told(list(PROMPTS))
    sources = studio.draw(studio.of_texts(told), told.tokens)
    scale = max(1, 64 // sources.shape[1])

    def keep(name: str, pictures: np.ndarray, columns: int = WIDE) -> None:
        shown = pictures if pictures.ndim == 3 else grid(to_uint8(pictures), columns, scale=scale)
        save_png(out / f"{name}.png", shown)
        print(f"wrote {out / name}.png", flush=True)

    keep("variations", variations(studio, sources))
    keep("interpolations", between(studio, sources))
    keep("edits", edits(studio, sources))
    keep("written", attacks(studio, sources))
    counts = (1, 2, 4, 8, 16, 32, 64, 128)
    keep("components", components(studio, sources, counts))
    keep("conditions", conditions(studio, PROMPTS))
    signs = studio.clip.told([sign for sign in SIGNS for _ in range(WIDE)])
    keep("signs", studio.draw(studio.of_texts(signs), signs.tokens))
    if shapes and shapes_prior:
        asked, kept = binding(Studio(shapes, shapes_prior, (), steps, seed, data_dir))
        scale = 4
        keep("binding", asked)
        keep("binding_kept", kept)


if __name__ == "__main__":
    tyro.cli(main)
