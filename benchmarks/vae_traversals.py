"""What each latent of a VAE does: python benchmarks/vae_traversals.py runs/vae_mnist_1
runs/vae_mnist_4 runs/vae_mnist_16

A block for each run, one below the other; in it a row for each latent, those that say most first:
the reconstruction of one test picture, and what it becomes with this latent from -3 to 3. A latent
that says nothing changes nothing.
"""

from pathlib import Path

import jax
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.losses.autoencoding import kl_to_standard_normal  # noqa: E402
from diffusion_jax.training.codecs import VAETask, load_codec  # noqa: E402
from diffusion_jax.training.runs import load_params  # noqa: E402


def traversals(
    task: VAETask, params, pictures: np.ndarray, shown: int, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pictures [latents, 1 + values, h w c], and each row's nats, the most first.

    Args:
        task, params: the VAE.
        pictures: [n h w c] in [-1, 1], over which a latent's KL is a mean.
        shown: which of them is traversed.
        values: that the latent takes.
    """
    q = jax.jit(lambda x: task.answer(params["codec"], x, "encode"))(pictures)
    each = jax.vmap(kl_to_standard_normal, 1, 1)(q.mean[..., None], q.log_variance[..., None])
    nats = np.asarray(each).mean(0)
    z = np.asarray(q.mean[shown])
    decode = jax.jit(lambda z: task.decode(params, z))
    rows = []
    for latent in np.argsort(-nats):
        moved = np.repeat(z[None], len(values), axis=0)
        moved[:, latent] = values
        rows.append(np.asarray(decode(np.concatenate([z[None], moved]))))
    return np.stack(rows), np.sort(nats)[::-1]


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    shown: int = 0,
    steps: int = 9,
    count: int = 1000,
    data_dir: Path | None = None,
    out: Path = Path("vae_traversals.png"),
) -> None:
    """Writes the picture, and prints each run's nats a latent.

    Args:
        runs: of configs/vae_mnist.py.
        shown: number of the test picture.
        steps: values of each latent.
        count: test pictures over which the nats are means.
        data_dir: folder of prepared TFDS sets.
        out: the PNG.
    """
    blocks = []
    for run in runs:
        task = load_codec(run)
        if not isinstance(task, VAETask):
            raise SystemExit(f"{run} holds no plain VAE.")
        source = task.source("test", data_dir)
        first = range(max(shown + 1, min(count, len(source))))
        pictures = np.stack([source[i]["image"] for i in first]) / np.float32(127.5) - 1
        values = np.linspace(-3, 3, steps)
        rows, nats = traversals(task, load_params(task, run), pictures, shown, values)
        said = ", ".join(f"{x:.2f}" for x in nats)
        print(f"{run}: beta {task.beta:g}, nats of each latent {said}")
        blocks.append(grid(to_uint8(rows.reshape(-1, *rows.shape[2:])), columns=steps + 1))
    save_png(out, np.concatenate(blocks))


if __name__ == "__main__":
    tyro.cli(main)
