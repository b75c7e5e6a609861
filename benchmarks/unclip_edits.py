"""What turned embeddings do, in numbers: python benchmarks/unclip_edits.py runs/emoji_decoder
--judge runs/emoji64_judge

On the test split, by a judge as in unclip_quality.py:

- inversion: the mean squared error of what DDIM leads back to, pixels in [-1, 1], given z_i, and
  what each channel's mean would have;
- variations (eta = 1 from the inverted noise): how often the judge's nearest concept is the one it
  had for the picture itself, and, for comparison, for another picture of the same concept;
- text differences, of pairs of concepts of one style, from the first's text to the second's: how
  often the judge's cosine moves from the first's name toward the second's, and how often the
  second is the nearer one then, for each weight.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from clip_runs import Split, load_clip_run  # noqa: E402
from unclip_quality import Judge, prompts  # noqa: E402
from unclip_runs import clip_of, decoded, load_decoder, table  # noqa: E402

from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.samplers import DDIM  # noqa: E402
from diffusion_jax.systems import Stage, Unclip, text_difference  # noqa: E402
from diffusion_jax.training.drawing import in_batches  # noqa: E402


def pairs_of(test: Split, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pictures of one style each, of two concepts."""
    rng, first, second = np.random.default_rng(seed), [], []
    while len(first) < count:
        i, j = rng.integers(len(test.pictures), size=2)
        if test.styles[i] == test.styles[j] and test.concepts[i] != test.concepts[j]:
            first.append(i)
            second.append(j)
    return np.array(first), np.array(second)


def main(
    decoder: tyro.conf.Positional[Path],
    judge: Path,
    pairs: int = 50,
    weights: tuple[float, ...] = (0.25, 0.375, 0.5),
    guidance: float | None = None,
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 25,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> None:
    """Prints the numbers.

    Args:
        decoder: a run of configs/emoji_decoder.py.
        judge: a run of a CLIP that has seen the concepts.
        pairs: of concepts, and pictures that are varied and inverted.
        weights: of text differences.
        guidance: of the edited pictures' decoding (default: none).
        steps: of inversion and sampling.
        seed: of pairs and noise.
        batch_size: pictures at a time.
        data_dir: folder of prepared TFDS sets.
        out: folder of the pictures, which show real ones (default: the decoder's report).
    """
    clip, test = clip_of(decoder, data_dir), Split("test", data_dir)
    unclip = load_decoder(decoder, steps=steps, length=clip.task.length, guidance=1.0)
    unclip = replace(unclip, decoder=replace(unclip.decoder, sampler=DDIM()))
    turning = replace(unclip, decoder=replace(unclip.decoder, guidance=guidance))
    judged = Judge(load_clip_run(judge, data_dir), test, unclip.decoder.shape[0])
    one, two = pairs_of(test, pairs, seed)
    small = jnp.asarray(judged.small(test.pictures[one]))
    z = clip.images(test.pictures[one])
    invert = jax.jit(Stage.invert)

    def inverted(index: jax.Array) -> jax.Array:
        pictures, of = (jnp.take(x, index, axis=0, mode="clip") for x in (small, z))
        return invert(unclip.decoder, pictures, unclip.known(of, None))

    x1 = in_batches(inverted, pairs, batch_size, desc="inversion")

    def drawn(of: Unclip, embedding: jax.Array, desc: str) -> np.ndarray:
        how = {"start": x1, "seed": seed, "batch_size": batch_size, "desc": desc}
        return decoded(of, embedding, **how)

    back = drawn(unclip, z, "back")
    spread = float(np.mean((small - small.mean((1, 2), keepdims=True)) ** 2))
    error = float(np.mean((back - small) ** 2))
    print(f"inversion of {pairs} pictures in {steps} steps: mean squared error {error:.5f}", end="")
    print(f" (each one's mean colour: {spread:.3f})")

    varied = replace(unclip, decoder=replace(unclip.decoder, sampler=DDIM(1.0)))
    variations = drawn(varied, z, "variations")
    same_concept = test.concepts[one][:, None] == test.concepts[None]
    same_concept[np.arange(pairs), one] = False
    sibling = judged.small(test.pictures[same_concept.argmax(1)])
    names, right = judged.names, np.searchsorted(judged.concepts, test.concepts[one])
    real, found, other = (
        (judged.features(x) @ names.T).argmax(1) for x in (np.asarray(small), variations, sibling)
    )
    shares = {
        "the judge's concept is the picture's": found == real,
        "another style's picture's is": other == real,
        "the right one, of the picture": real == right,
        "of the variation": found == right,
    }
    said = "; ".join(f"{what} in {100 * np.mean(is_so):.0f} %" for what, is_so in shares.items())
    print(f"variations: {said}")

    texts = prompts(test)
    before, after = (clip.texts([texts[i] for i in of]) for of in (one, two))
    target = np.searchsorted(judged.concepts, test.concepts[two])
    rows, shown = {}, [np.asarray(small), back, variations]
    start = judged.features(drawn(turning, z, "weight 0")) @ names.T
    every = np.arange(pairs)
    for weight in weights:
        turned = text_difference(z, before, after, weight)
        pictures = drawn(turning, turned, f"weight {weight:g}")
        now = judged.features(pictures) @ names.T
        margin = [x[every, target] - x[every, right] for x in (start, now)]
        rows[f"{weight:g}"] = {
            "moves toward the second, %": 100 * float((margin[1] > margin[0]).mean()),
            "the second is nearer, %": 100 * float((margin[1] > 0).mean()),
            "it was before, %": 100 * float((margin[0] > 0).mean()),
            "the second is nearest of all, %": 100 * float((now.argmax(1) == target).mean()),
        }
        shown.append(pictures)
    print("\n" + table(rows, "weight"))
    folder = out or decoder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    tiles = to_uint8(np.concatenate([x[:16] for x in shown]))
    save_png(folder / "edits.png", grid(tiles, columns=16, scale=2))
    print(f"wrote {folder / 'edits.png'}: pictures, inverted, varied, and a row for each weight")


if __name__ == "__main__":
    tyro.cli(main)
