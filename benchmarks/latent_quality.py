"""Models of emoji from texts, side by side: python benchmarks/latent_quality.py
runs/emoji_latents runs/emoji_pixels runs/emoji_codes --judge runs/emoji64_judge

Each run draws the test split's concepts, 64x64, which it hasn't seen, and a CLIP that has seen them
(configs/emoji64_clip.py --split train+test) says what they are; the columns are those of
benchmarks/unclip_quality.py. Beside them: parameters, steps of training and the operations of all
of them (forward, backward and the optimizer's products, counted from shapes), those of its codec's
training, its judge and discriminator included, and how many pictures a second are drawn, in batches
of one size, the median of some after the first.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from clip_runs import Split, load_clip_run  # noqa: E402
from unclip_quality import Judge, prompts  # noqa: E402
from unclip_runs import table  # noqa: E402

from diffusion_jax.data import grid, save_png, to_uint8  # noqa: E402
from diffusion_jax.data.files import write_atomically  # noqa: E402
from diffusion_jax.systems.codes import CodePictures  # noqa: E402
from diffusion_jax.training.ahead import abstract_step  # noqa: E402
from diffusion_jax.training.code_pictures import CodeTask  # noqa: E402
from diffusion_jax.training.experiment import Experiment  # noqa: E402
from diffusion_jax.training.flops import count_flops  # noqa: E402
from diffusion_jax.training.known_cli import Told, known_from  # noqa: E402
from diffusion_jax.training.latents import CodecRun  # noqa: E402
from diffusion_jax.training.needs import check_pinned  # noqa: E402
from diffusion_jax.training.runs import load_params, load_task  # noqa: E402
from diffusion_jax.training.sampling import make_sample  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402


def drawn(
    run: Path, texts: list[str], steps: int, size: int, seed: int, data_dir: Path | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Pictures of the texts, and what the run costs."""
    task: Any = load_task(run)
    check_pinned(run, task.needs)
    params = load_params(task, run, mesh=data_mesh(1))
    known = known_from(task, len(texts), Told(prompt=tuple(texts)), data_dir)
    key = jax.random.key(seed)
    if isinstance(task, CodeTask):
        system, sample = task.system(params), jax.jit(CodePictures.sample)

        def draw(index: jax.Array, told: dict) -> jax.Array:
            return sample(system, key, told, index)

    elif isinstance(task, Experiment):
        jitted = make_sample(task, data_mesh(1), guided=task.guidance != 1, data_dir=data_dir)
        times = task.grid(steps)

        def draw(index: jax.Array, told: dict) -> jax.Array:
            return jitted(params, task.sampler, key, times, task.guidance, index, told)

    else:
        raise SystemExit(f"{run} draws no pictures.")
    pictures, seconds = [], []
    for start in range(0, len(texts), size):
        index = np.arange(start, start + size)
        told = {name: np.take(v, index, axis=0, mode="clip") for name, v in known.items()}
        began = time.perf_counter()
        pictures.append(np.asarray(draw(jnp.asarray(index), told)))
        seconds.append(time.perf_counter() - began)
    codec = getattr(task, "codec", None)
    codec = codec.run_dir if isinstance(codec, CodecRun) else codec
    costs = {
        "parameters, M": sum(x.size for x in jax.tree.leaves(params)) / 1e6,
        "steps": steps_of(run),
        "training, PFLOP": training_flops(run) / 1e15,
        "its codec's, PFLOP": training_flops(codec) / 1e15 if codec else 0.0,
        "pictures a second": size / float(np.median(seconds[1:] or seconds)),
    }
    return np.concatenate(pictures)[: len(texts)], costs


def steps_of(run: Path) -> int:
    """How many steps it was trained."""
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def training_flops(run: Path) -> float:
    """Operations of its training."""
    step, arguments = abstract_step(load_task(run), data_mesh(1))
    return steps_of(run) * count_flops(step, *arguments)


def main(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    judge: Path,
    steps: int = 50,
    batch_size: int = 31,
    num: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    out: Path = Path("runs/latent_quality"),
) -> None:
    """Prints the table, and writes it and some of the pictures.

    Args:
        runs: of configs/emoji_text.py or configs/emoji_codes.py.
        judge: a run of a CLIP that has seen the concepts.
        steps: of a diffusion model's sampler.
        batch_size: pictures at a time.
        num: of the test split; all by default.
        seed: of the noise, which is the same for every run.
        data_dir: folder of prepared TFDS sets.
        out: folder of the table and the pictures, all of them drawn.
    """
    test = Split("test", data_dir)
    if num is not None:
        test.pictures, test.records = test.pictures[:num], test.records[:num]
        test.concepts, test.styles = test.concepts[:num], test.styles[:num]
    judged = Judge(load_clip_run(judge, data_dir), test, test.pictures.shape[1])
    rows, shown = {}, []
    for run in runs:
        pictures, costs = drawn(run, prompts(test), steps, batch_size, seed, data_dir)
        rows[run.name] = {**judged.measure(pictures), **costs}
        print(f"{run.name}: {rows[run.name]}", flush=True)
        shown.append(pictures[:16])
    rows["held-out pictures"] = judged.measure(test.pictures)
    print("\n" + table(rows, "model"))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "table.json", (json.dumps(rows, indent=2) + "\n").encode())
    save_png(out / "pictures.png", grid(to_uint8(np.concatenate(shown)), columns=16))
    print(f"wrote {out / 'table.json'} and {out / 'pictures.png'}: a row for each model")


if __name__ == "__main__":
    tyro.cli(main)
