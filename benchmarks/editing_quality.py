"""How well pictures are edited: python benchmarks/editing_quality.py runs/fashion_mnist

On 100 real held-out pictures, with the model alone (no guidance), prints, writes to editing.json
and draws into --pictures:
- inversion: the mean squared error, pixels in [0, 1], of DDIM to t = 1 and back, at 20, 50 and 100
  even steps; and edits, the code drawn under another label;
- inpainting of the lower half, by replacement and by RePaint: the seam error, which is the root
  mean square by which the change from the last known row to the first drawn one differs from
  what a linear continuation of the known rows and of the drawn rows would have it be; that of
  the real pictures beside it; and how many known pixels changed;
- image-to-image at several strengths, the root mean square change;
- slerp between the codes of two pictures.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import diffusion_jax as dj  # noqa: E402
from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.training.runs import load_experiment, restore_params  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402

START = 2e-3  # where inversion begins: noise of 0.003 is missing from the picture


def seam_error(pictures: np.ndarray, row: int) -> float:
    """How far the rows on both sides of a seam are from continuing each other, pixels in [0, 1].

    x[row] is compared with the linear continuation 2 x[row - 1] - x[row - 2] from above, and
    x[row - 1] with 2 x[row] - x[row + 1] from below.
    """
    x = (np.asarray(pictures, float) + 1) / 2
    down = x[:, row] - (2 * x[:, row - 1] - x[:, row - 2])
    up = x[:, row - 1] - (2 * x[:, row] - x[:, row + 1])
    return float(np.sqrt(np.mean((down**2 + up**2) / 2)))


def main(
    run_dir: tyro.conf.Positional[Path],
    num: int = 100,
    steps: int = 50,
    resamples: int = 10,
    jump: int = 5,
    seed: int = 1,
    drawn: bool = False,
    pictures: Path | None = None,
    data_dir: Path | None = None,
) -> None:
    """Measures edits by a class-conditional run.

    Args:
        run_dir: the run.
        num: real pictures.
        steps: of inpainting and image-to-image.
        resamples, jump: RePaint's.
        seed: of the noise.
        drawn: edit pictures that the model itself draws, which may be shown anywhere.
        pictures: folder of the pictures (default: the run's report).
        data_dir: folder of prepared TFDS sets.
    """
    experiment = load_experiment(run_dir)
    mesh, key = data_mesh(1), jax.random.key(seed)
    restored = restore_params(experiment, run_dir, "ema", None, mesh)
    network = dataclasses.replace(experiment, finish=lambda denoiser, process: denoiser)
    source, process = experiment.source("test", data_dir), experiment.process
    records = [source[i] for i in range(num)]
    real = jnp.asarray(np.stack([r["image"] for r in records]), jnp.float32) / 127.5 - 1
    label = jnp.asarray([r["label"] for r in records])
    folder = pictures or run_dir / "report"
    folder.mkdir(parents=True, exist_ok=True)
    report: dict = {"run": str(run_dir), "trained_steps": restored.step, "num": num}

    @jax.jit
    def walk(sampler, x, times, label):
        """Unclipped, as inversion needs."""
        denoiser = network.denoiser(restored.state, {"label": label}, None)
        return dj.sample(key, sampler, process, denoiser, x, times)

    @jax.jit
    def clipped(sampler, x, times, label):
        denoiser = experiment.denoiser(restored.state, {"label": label}, None)
        return jnp.clip(dj.sample(key, sampler, process, denoiser, x, times), -1, 1)

    if drawn:
        x = dj.draw_prior(key, process, real.shape)
        real = clipped(dj.DDIM(), x, dj.trailing(steps), label)

    def save(name: str, rows: list) -> None:
        shown = np.concatenate([to_uint8(row)[:12] for row in rows])
        save_png(folder / f"{name}.png", grid(shown, columns=12, scale=2))

    def timed(name: str, began: float, **values) -> None:
        report[name] = values | {"seconds": round(time.perf_counter() - began, 1)}
        print(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in report[name].items()), flush=True)

    for count in (20, 50, 100):
        began = time.perf_counter()
        up = dj.inversion_grid(dj.trailing(count), START)
        code = walk(dj.DDIM(), real, up, label)
        back = walk(dj.DDIM(), code, up[::-1], label)
        error = np.mean(np.square((back - real) / 2), axis=(1, 2, 3))
        timed(f"inversion_{count}", began, mse=float(error.mean()), worst=float(error.max()),
              code_std=float(code.std()))  # fmt: skip
    other = (label + 5) % 10
    save("inversion", [real, back, walk(dj.DDIM(), code, up[::-1], other)])
    pair = [dj.slerp(code[:12], jnp.roll(code[:12], -1, axis=0), w) for w in (0.0, 0.25, 0.5, 0.75)]
    nothing = jnp.full(12, -1)  # a label would hold on to one end
    save("slerp", [clipped(dj.DDIM(), x, up[::-1], nothing) for x in pair])

    height = experiment.image_shape[0]
    mask = (jnp.arange(height) < height // 2).astype(jnp.float32)[None, :, None, None]
    times, x = dj.trailing(steps), dj.draw_prior(key, process, real.shape)
    ways = {
        "replacement": (dj.Replacement(dj.Ancestral(), real, mask), times),
        "repaint": (
            dj.RePaint(dj.Ancestral(), real, mask), dj.repaint_grid(times, jump, resamples)
        ),
    }  # fmt: skip
    known, rows = np.asarray(jnp.broadcast_to(mask == 1, real.shape)), [real, real * mask]
    print(f"real pictures: seam error {seam_error(real, height // 2):.4f}")
    report["seam_real"] = seam_error(real, height // 2)
    for name, (sampler, walked) in ways.items():
        began = time.perf_counter()
        # Without a label: what the lower half is must come from the upper one.
        found = np.asarray(clipped(sampler, x, walked, jnp.full_like(label, -1)))
        changed = np.mean(found[known] != np.asarray(real)[known])
        timed(name, began, seam_error=seam_error(found, height // 2), known_changed=float(changed),
              evaluations=int(np.sum(np.diff(walked) < 0)))  # fmt: skip
        rows.append(found)
    save("inpainting", rows)

    rows = [real]
    for strength in (0.3, 0.5, 0.7, 0.9):
        began = time.perf_counter()
        start = dj.renoise(key, process, real, strength)
        rows.append(clipped(dj.DDIM(), start, strength * times, other))
        timed(f"strength_{strength:g}", began,
              change=float(np.sqrt(np.mean(np.square((rows[-1] - real) / 2)))))  # fmt: skip
    save("image_to_image", rows)
    write_atomically(folder / "editing.json", (json.dumps(report, indent=2) + "\n").encode())
    print(f"wrote {folder}/editing.json and five pictures")


if __name__ == "__main__":
    tyro.cli(main)
