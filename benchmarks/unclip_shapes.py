"""What CLIP's embeddings know of who is red and who is above: python benchmarks/unclip_shapes.py
runs/shapes_decoder --priors runs/shapes_prior

Held-out captions of coloured shapes, drawn by one decoder from each conditioning signal, and read
back by the exact judge: attributes obeyed, captions obeyed whole, and of the captions of two
objects that differ in colour and shape, how often

- both are there (one with each colour, one with each shape),
- of those, each colour is on its own shape ("bound"), or on the other's ("swapped"),
- of captions that name a relation, how often it holds.

Ramesh et al. 2022, section 5 and figures 14 and 15: the decoder mixes up objects and attributes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from shapes_quality import judge_captions  # noqa: E402
from unclip_runs import clip_of, decoded, from_prior, load_decoder, table  # noqa: E402

from diffusion_jax.data import grid, parse_caption, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import judge_caption, read_things  # noqa: E402
from diffusion_jax.training.stages import load_prior  # noqa: E402


def share(values: Sequence[bool]) -> float:
    return 100 * float(np.mean(values)) if len(values) else float("nan")


def binding(pictures: np.ndarray, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares of captions of two objects that differ in colour and shape, and of relations."""
    there, bound, swapped, related = [], [], [], []
    for picture, record in zip(pictures, records, strict=True):
        asked = parse_caption(record["caption"])
        if asked.relation is not None:
            related.append("relation" not in judge_caption(picture, record["caption"]).missed)
        if len(asked.things) != 2:
            continue
        one, two = asked.things
        if one.colour == two.colour or one.shape == two.shape:
            continue
        found = sorted((thing.colour, thing.shape) for thing in read_things(picture))
        right = sorted([(one.colour, one.shape), (two.colour, two.shape)])
        wrong = sorted([(one.colour, two.shape), (two.colour, one.shape)])
        there.append(found in (right, wrong))
        if there[-1]:
            bound.append(found == right)
            swapped.append(found == wrong)
    return {
        "both there, %": share(there),
        "bound, %": share(bound),
        "swapped, %": share(swapped),
        "relation, %": share(related),
    }


def main(
    decoder: tyro.conf.Positional[Path],
    priors: tuple[Path, ...],
    num: int = 1000,
    guidance: float | None = None,
    steps: int = 12,
    seed: int = 1,
    batch_size: int = 100,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> None:
    """Prints the table, and writes it and some of the pictures.

    Args:
        decoder: of shapes, trained on a run of configs/shapes_clip.py.
        priors: runs of priors on the same CLIP.
        num: held-out captions.
        guidance: of the decoder (default: its recipe's).
        steps: of the decoder's sampler.
        seed: of the noise, which is the same for every row.
        batch_size: pictures at a time.
        data_dir: of nothing: shapes are drawn.
        out: folder of the report (default: the decoder's report).
    """
    clip = clip_of(decoder)
    unclip = load_decoder(decoder, steps=steps, length=clip.task.length, guidance=guidance)
    source = clip.task.source("test", data_dir)
    records = [source[i % len(source)] for i in range(num)]
    told = clip.told([r["caption"] for r in records])
    real = np.stack([r["image"] for r in records]).astype(np.float32) / 127.5 - 1
    z_i = np.asarray(clip.images(real))
    nothing, silent = np.zeros_like(z_i), np.zeros_like(told.tokens)
    signals = {"text alone": (nothing, told.tokens), "z_t alone": (told.embedding, silent)}
    signals |= {"z_t, text": (told.embedding, told.tokens)}
    for run in priors:
        z = from_prior(load_prior(run, decoder=decoder), told, seed=seed)
        signals |= {f"{run.name} alone": (z, silent), f"{run.name}, text": (z, told.tokens)}
    signals |= {"true z_i alone": (z_i, silent), "true z_i, text": (z_i, told.tokens)}

    rows, shown = {}, [np.stack([r["image"] for r in records[:12]])]
    for name, (z, tokens) in signals.items():
        pictures = decoded(unclip, z, tokens, seed=seed, batch_size=batch_size, desc=name)
        found = judge_captions(pictures, records, {})
        rows[name] = {
            "attributes, %": 100 * found["attributes"],
            "whole captions, %": 100 * found["whole"],
            **binding(pictures, records),
        }
        shown.append(to_uint8(pictures[:12]))
    print(f"{num} held-out captions\n\n" + table(rows, "told"))
    folder = out or decoder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"decoder": str(decoder), "guidance": guidance, "rows": rows}, indent=2)
    write_atomically(folder / "binding.json", (text + "\n").encode())
    save_png(folder / "binding.png", grid(np.concatenate(shown), columns=12, scale=4))
    print(f"wrote {folder / 'binding.json'} and {folder / 'binding.png'}: what was asked for first")


if __name__ == "__main__":
    tyro.cli(main)
