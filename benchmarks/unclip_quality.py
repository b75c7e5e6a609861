"""What each way of telling the decoder is worth: python benchmarks/unclip_quality.py
runs/emoji_decoder --priors runs/emoji_prior runs/emoji_code_prior --judge runs/emoji64_judge

Draws the test split's concepts, which none of the models has seen, and asks a judge, a CLIP that
has seen them (configs/emoji64_clip.py --split train+test), what they are:

- CLIP score: the cosine with the prompt, which names the concept and the style, times 100;
- concept: how often it is the nearest of the test concepts' names, top 1 and top 5;
- style: how often the prompt's of the four styles is the nearest;
- distance: Frechet's, in the judge's features, from the pictures held out. Of few pictures it is
  large even for real ones, so that the training split's are there as a measure.

Real pictures are shrunk to the decoder's size, and the judge sees all of them enlarged as smoothly,
unless --upsampler enlarges what was drawn.
"""

import json
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
from clip_runs import Encoders, Split, described, load_clip_run  # noqa: E402
from unclip_runs import clip_of, decoded, from_prior, load_decoder, table  # noqa: E402

from diffusion_jax.data import EMOJI_STYLES, grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import frechet_between, zero_shot_accuracy  # noqa: E402
from diffusion_jax.models.image_conditioning import shrink  # noqa: E402
from diffusion_jax.training.stages import load_prior  # noqa: E402

Row = dict[str, float]


class Judge:
    """Measures of pictures that should be those of the test split, in its order."""

    def __init__(self, clip: Encoders, test: Split, size: int):
        self._clip, self._test, self._size = clip, test, size
        self._side = test.pictures.shape[1]
        self._prompts = np.asarray(clip.texts(prompts(test)))
        self.concepts = np.unique(test.concepts)
        self.names = np.asarray(clip.texts([described(r) for r in test.first_of(self.concepts)]))
        named = [f"{r['caption']}, in {s} style" for r in test.records for s in EMOJI_STYLES]
        self._styles = np.asarray(clip.texts(named)).reshape(
            len(test.records), len(EMOJI_STYLES), -1
        )
        self._real = self.features(self.small(test.pictures))

    def small(self, pictures: np.ndarray) -> np.ndarray:
        """Real pictures as the decoder would draw them."""
        return np.asarray(shrink(jax.numpy.asarray(pictures), self._side // self._size))

    def features(self, pictures: np.ndarray) -> np.ndarray:
        shape = (len(pictures), self._side, self._side, 3)
        large = jax.image.resize(to_uint8(pictures) / 127.5 - 1.0, shape, "bilinear")
        return np.asarray(self._clip.images(np.asarray(large, np.float32)))

    def measure(self, pictures: np.ndarray) -> Row:
        z = self.features(pictures)
        right = np.searchsorted(self.concepts, self._test.concepts)
        found = zero_shot_accuracy(z, self.names, right, (1, 5)).found
        style = np.einsum("nd,nsd->ns", z, self._styles).argmax(1) == self._test.styles
        return {
            "CLIP score": 100 * float((z * self._prompts).sum(1).mean()),
            "concept, top 1, %": 100 * found[1],
            "top 5, %": 100 * found[5],
            "style, %": 100 * float(style.mean()),
            "distance": self.distance(z),
        }

    def distance(self, features: np.ndarray) -> float:
        """Frechet's, from the pictures held out."""
        return frechet_between(features, self._real)


def prompts(test: Split) -> list[str]:
    return [f"{r['caption']}, in {EMOJI_STYLES[r['style']]} style" for r in test.records]


def main(
    decoder: tyro.conf.Positional[Path],
    priors: tuple[Path, ...],
    judge: Path,
    upsampler: tuple[Path, ...] = (),
    guidance: float | None = None,
    prior_guidance: float | None = None,
    steps: int = 25,
    seed: int = 0,
    batch_size: int = 31,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> None:
    """Prints the table, and writes it and some of the pictures.

    Args:
        decoder: a run of configs/emoji_decoder.py.
        priors: runs of priors.
        judge: a run of a CLIP that has seen the concepts.
        upsampler: runs of upsamplers.
        guidance: of the decoder (default: its recipe's).
        prior_guidance: of the priors (default: their recipes').
        steps: of the decoder's sampler.
        seed: of the noise, which is the same for every row.
        batch_size: pictures at a time.
        data_dir: folder of prepared TFDS sets.
        out: folder of the report (default: the decoder's report).
    """
    clip, test = clip_of(decoder, data_dir), Split("test", data_dir)
    how: Any = {"length": clip.task.length, "guidance": guidance, "upsamplers": upsampler}
    unclip = load_decoder(decoder, steps=steps, **how)
    judged = Judge(load_clip_run(judge, data_dir), test, unclip.decoder.shape[0])
    told, z_i = clip.told(prompts(test)), np.asarray(clip.images(test.pictures))
    nothing, silent = np.zeros_like(z_i), np.zeros_like(told.tokens)
    ways = {
        "text alone": (nothing, told.tokens),
        "z_t in place of z_i, text": (told.embedding, told.tokens),
        "neither": (nothing, silent),
    }
    for run in priors:
        prior = load_prior(run, guidance=prior_guidance, decoder=decoder, data_dir=data_dir)
        z = from_prior(prior, told, seed=seed)
        ways |= {f"{run.name}, text": (z, told.tokens), f"{run.name} alone": (z, silent)}
    ways |= {"true z_i, text": (z_i, told.tokens), "true z_i alone": (z_i, silent)}

    train = Split("train", data_dir)
    some = np.random.default_rng(0).choice(len(train.pictures), len(test.pictures), replace=False)
    rows: dict[str, Row] = {}
    shown = []
    firsts = np.unique(test.concepts, return_index=True)[1]
    for name, (z, tokens) in ways.items():
        pictures = decoded(unclip, z, tokens, seed=seed, batch_size=batch_size, desc=name)
        rows[name] = judged.measure(pictures)
        shown.append(to_uint8(pictures[firsts[::5][:16]]))
        print(f"{name}: {rows[name]}", flush=True)
    rows["held-out pictures"] = judged.measure(judged.small(test.pictures))
    other = judged.features(judged.small(train.pictures[some]))
    rows["as many training pictures"] = {"distance": judged.distance(other)}
    print("\n" + table(rows, "told"))
    folder = out or decoder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"decoder": str(decoder), "guidance": guidance, "rows": rows}, indent=2)
    write_atomically(folder / "quality.json", (text + "\n").encode())
    save_png(folder / "quality.png", grid(np.concatenate(shown), columns=len(shown[0]), scale=2))
    print(f"wrote {folder / 'quality.json'} and {folder / 'quality.png'}: a row for each way")


if __name__ == "__main__":
    tyro.cli(main)
