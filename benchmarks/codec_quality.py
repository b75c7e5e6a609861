"""What a codec loses and what its latents cost: python benchmarks/codec_quality.py runs/kl_emoji64

On the test split: PSNR and mean absolute error of reconstructions; of a vector-quantised codec the
codes that are used and their perplexity; of a KL one the size of its latents; of a plain VAE the
bound in bits a dimension, with its terms. With --judge the Fréchet distance of reconstructions from
the pictures themselves, in the features of a run of CLIP; of few pictures it is large even for real
ones, so that as many of the training split are there as a measure. Reconstructions are rounded to
8 bits first, as pictures in files are. One batch of pictures and what became of them is drawn too.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.data import Source, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.evaluation import frechet_between  # noqa: E402
from diffusion_jax.losses import autoencoding  # noqa: E402
from diffusion_jax.training.codecs import (  # noqa: E402
    CodecTask,
    VAETask,
    load_codec,
    psnr,
    reconstruct,
)
from diffusion_jax.training.contrastive import image_encoder  # noqa: E402
from diffusion_jax.training.embeddings import load_clip_task  # noqa: E402
from diffusion_jax.training.known_cli import in_range  # noqa: E402
from diffusion_jax.training.needs import identity  # noqa: E402
from diffusion_jax.training.picture_codecs import KLTask, VQTask  # noqa: E402
from diffusion_jax.training.runs import load_params  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402
from diffusion_jax.types import Params  # noqa: E402

SEED = 0  # of the bound's draws, and of which training pictures are taken


def pictures_of(source: Source, chosen: Iterable[int]) -> np.ndarray:
    """These pictures of a source, in [-1, 1]."""
    return in_range(np.stack([source[int(i)]["image"] for i in chosen]))


def features_of(judge: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What a run of CLIP says of pictures in [-1, 1]."""
    clip = load_clip_task(judge)
    features = image_encoder(clip, load_params(clip, judge))
    return lambda pictures: np.asarray(features(pictures))


def parts(pictures: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(pictures), size):
        yield pictures[start : start + size]


def vae_terms(task: VAETask, params: Params, pictures: np.ndarray, size: int) -> dict[str, float]:
    """The bound and its terms, one draw of z a picture; means in bits a dimension."""
    loss = jax.jit(task.loss())
    rows, weights = [], []
    for number, part in enumerate(parts(pictures, size)):
        key = jax.random.fold_in(jax.random.key(SEED), number)
        rows.append(loss(params, (), key, {"image": part})[1][0])
        weights.append(len(part))
    names = ("bound", "distortion", "rate", "kl_nats")
    return {n: float(np.average([row[n] for row in rows], weights=weights)) for n in names}


def vae_latents(task: VAETask, params: Params, pictures: np.ndarray, size: int) -> dict[str, float]:
    """How many latents say more than a tenth of a nat."""

    @jax.jit
    def nats(x: jax.Array) -> jax.Array:
        q = task.answer(params["codec"], x, "encode")
        return jax.vmap(autoencoding.kl_to_standard_normal, 1, 1)(
            q.mean[..., None], q.log_variance[..., None]
        )

    each = np.concatenate([np.asarray(nats(x)) for x in parts(pictures, size)]).mean(0)
    return {"latents in use": int(np.sum(each > 0.1)), "latents": len(each)}


def code_usage(task: VQTask, params: Params, pictures: np.ndarray, size: int) -> dict[str, float]:
    """Of the whole set: perplexity, and the share of codes that come at all."""
    codes = jax.jit(task.codes)
    total = task.network.codes
    count = np.zeros(total)
    for x in parts(pictures, size):
        count += np.bincount(np.asarray(codes(params, x)).ravel(), minlength=total)
    usage = jnp.asarray(count / count.sum() * total, jnp.float32)
    found = autoencoding.usage_metrics(usage, dead=1e-12)
    return {"codes": total, **{name: float(value) for name, value in found.items()}}


def latent_sizes(task: CodecTask, params: Params, pictures: np.ndarray, size: int) -> dict:
    """Mean and deviation of the latents' entries."""
    encode = jax.jit(task.encode)
    z = np.concatenate([np.asarray(encode(params, x)) for x in parts(pictures, size)])
    return {
        "latent mean": float(z.mean()),
        "latent std": float(z.std()),
        "numbers a picture": int(z[0].size),
    }


def main(
    run: tyro.conf.Positional[Path],
    judge: Path | None = None,
    count: int | None = None,
    batch_size: int = 32,
    data_dir: Path | None = None,
    out: Path | None = None,
) -> None:
    """Prints one line a number, and writes them and the picture.

    Args:
        run: of a codec.
        judge: a run of a CLIP of such pictures, for the Fréchet distance.
        count: test pictures (default: all).
        batch_size: pictures at a time.
        data_dir: folder of prepared TFDS sets.
        out: folder of the report (default: the run's report).
    """
    task = load_codec(run)
    params = load_params(task, run)
    test = task.source("test", data_dir)
    real = pictures_of(test, range(min(count or len(test), len(test))))
    again = in_range(to_uint8(reconstruct(task, params, real, data_mesh(1), batch_size)))
    found: dict[str, float] = {
        "pictures": len(real),
        "PSNR, dB": float(np.mean(psnr(jnp.asarray(real), jnp.asarray(again)))),
        "absolute error": float(np.abs(real - again).mean()),
    }
    if isinstance(task, VAETask):
        found |= vae_terms(task, params, real, batch_size)
        found |= vae_latents(task, params, real, batch_size)
    if isinstance(task, VQTask):
        found |= code_usage(task, params, real, batch_size)
    if isinstance(task, KLTask):
        found |= latent_sizes(task, params, real, batch_size)
    if judge is not None:
        features, train = features_of(judge), task.source("train", data_dir)
        some = np.random.default_rng(SEED).choice(len(train), len(real), replace=False)
        theirs = features(real)
        found["Frechet distance"] = frechet_between(features(again), theirs)
        other = features(pictures_of(train, some))
        found["of as many training pictures"] = frechet_between(other, theirs)
    for name, value in found.items():
        print(f"{name:36} {value:.4g}")

    out = out or run / "report"
    out.mkdir(parents=True, exist_ok=True)
    who = {"codec": identity(run), "judge": identity(judge) if judge else None, "seed": SEED}
    text = json.dumps({**who, "numbers": found}, indent=2)
    write_atomically(out / "codec.json", (text + "\n").encode())
    save_png(out / "codec.png", task.draw(params, data_mesh(1), data_dir))


if __name__ == "__main__":
    tyro.cli(main)
