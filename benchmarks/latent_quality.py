"""Models of emoji from texts, side by side: python benchmarks/latent_quality.py
runs/emoji_latents runs/emoji_pixels runs/emoji_codes --judge runs/emoji64_judge

Each run draws the test split's concepts, 64x64, which it hasn't seen, and a CLIP that has seen them
(configs/emoji64_clip.py --split train+test) says what they are; the columns are those of
benchmarks/unclip_quality.py. Real pictures are there as a measure: those held out, as many of the
training split, and what each codec makes of those held out, which its latents can't exceed. Beside
them: guidance, parameters with the codec's, steps of training and the operations of all of them
(forward, backward and the optimizer's products, counted from shapes), those of its codec's
training, its judge's features and its discriminator included, both together, and how many pictures
a second are drawn, compilation apart.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
from diffusion_jax.models.conditioning import Known  # noqa: E402
from diffusion_jax.systems.codes import CodePictures  # noqa: E402
from diffusion_jax.training.ahead import abstract_step  # noqa: E402
from diffusion_jax.training.code_pictures import CodeTask  # noqa: E402
from diffusion_jax.training.codecs import load_codec, reconstruct  # noqa: E402
from diffusion_jax.training.experiment import Experiment  # noqa: E402
from diffusion_jax.training.flops import count_flops  # noqa: E402
from diffusion_jax.training.known_cli import Told, known_from  # noqa: E402
from diffusion_jax.training.latents import CodecRun, codec_params  # noqa: E402
from diffusion_jax.training.needs import check_pinned, identity  # noqa: E402
from diffusion_jax.training.runs import load_params, load_task  # noqa: E402
from diffusion_jax.training.sampling import make_sample  # noqa: E402
from diffusion_jax.training.sharding import data_mesh  # noqa: E402
from diffusion_jax.types import Params  # noqa: E402


class Model(NamedTuple):
    """A run, ready to draw.

    Attributes:
        run: its folder.
        task: its recipe.
        params: of the model.
        draw: (numbers of pictures, what is told of them) -> pictures.
    """

    run: Path
    task: Any
    params: Params
    draw: Callable[[jax.Array, Known], jax.Array]

    @property
    def codec(self) -> Path | None:
        """The run of its codec; None draws pixels."""
        codec = getattr(self.task, "codec", None)
        return codec.run_dir if isinstance(codec, CodecRun) else codec


def load_model(run: Path, steps: int, seed: int, data_dir: Path | None) -> Model:
    """A run of either kind; `steps` are of a diffusion model's sampler."""
    task: Any = load_task(run)
    check_pinned(run, task.needs)
    params = load_params(task, run, mesh=data_mesh(1))
    key = jax.random.key(seed)
    if isinstance(task, CodeTask):
        system, sample = task.system(params), jax.jit(CodePictures.sample)
        return Model(run, task, params, lambda index, told: sample(system, key, told, index))
    if not isinstance(task, Experiment):
        raise SystemExit(f"{run} draws no pictures.")
    jitted = make_sample(task, data_mesh(1), guided=task.guidance != 1, data_dir=data_dir)
    times = task.grid(steps)

    def draw(index: jax.Array, told: Known) -> jax.Array:
        return jitted(params, task.sampler, key, times, task.guidance, index, told)

    return Model(run, task, params, draw)


def drawn(model: Model, known: Known, count: int, size: int) -> tuple[np.ndarray, float]:
    """`count` pictures, `size` at a time, and how many a second after the compilation."""

    def batch(start: int) -> np.ndarray:
        index = np.arange(start, start + size)
        told = {name: np.take(v, index, axis=0, mode="clip") for name, v in known.items()}
        return np.asarray(model.draw(jnp.asarray(index), told))

    batch(0)  # which compiles
    began = time.perf_counter()
    pictures = np.concatenate([batch(start) for start in range(0, count, size)])[:count]
    return pictures, count / (time.perf_counter() - began)


def costs(model: Model) -> dict[str, float]:
    """Of a run and its codec."""
    own, codec = training_flops(model.run) / 1e15, 0.0
    sizes = [model.params]
    if model.codec is not None:
        codec = training_flops(model.codec) / 1e15
        sizes.append(codec_params(model.codec))
    return {
        "guidance": model.task.guidance,
        "parameters, M": sum(x.size for x in jax.tree.leaves(sizes)) / 1e6,
        "steps": steps_of(model.run),
        "training, PFLOP": own,
        "its codec's, PFLOP": codec,
        "all training, PFLOP": own + codec,
    }


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
        out: folder of the table and some of the pictures.
    """
    test = Split("test", data_dir)
    if num is not None:
        test.pictures, test.records = test.pictures[:num], test.records[:num]
        test.concepts, test.styles = test.concepts[:num], test.styles[:num]
    judged = Judge(load_clip_run(judge, data_dir), test, test.pictures.shape[1])
    rows: dict[str, dict[str, float]] = {}
    shown, codecs = [], {}
    for run in runs:
        model, texts = load_model(run, steps, seed, data_dir), prompts(test)
        known = known_from(model.task, len(texts), Told(prompt=tuple(texts)), data_dir)
        pictures, rate = drawn(model, known, len(texts), batch_size)
        rows[run.name] = {**judged.measure(pictures), **costs(model), "pictures a second": rate}
        print(f"{run.name}: {rows[run.name]}", flush=True)
        shown.append(pictures[:16])
        if model.codec is not None:
            codecs[model.codec.resolve()] = load_codec(model.codec)
    for run, codec in codecs.items():
        params = load_params(codec, run, mesh=data_mesh(1))
        again = reconstruct(codec, params, test.pictures, data_mesh(1), batch_size)
        rows[f"held-out pictures by {run.name}"] = judged.measure(again)
    rows["held-out pictures"] = judged.measure(test.pictures)
    del rows["held-out pictures"]["distance"]  # from themselves
    train = Split("train", data_dir)
    some = np.random.default_rng(0).choice(len(train.pictures), len(test.pictures), replace=False)
    other = judged.features(train.pictures[some])
    rows["as many training pictures"] = {"distance": judged.distance(other)}
    print("\n" + table(rows, "model"))
    out.mkdir(parents=True, exist_ok=True)
    how = {"steps": steps, "seed": seed, "pictures": len(test.pictures)}
    who = {"judge": identity(judge), "runs": [identity(run) for run in (*runs, *codecs)]}
    text = json.dumps({**who, **how, "rows": rows}, indent=2)
    write_atomically(out / "table.json", (text + "\n").encode())
    save_png(out / "pictures.png", grid(to_uint8(np.concatenate(shown)), columns=16))
    print(f"wrote {out / 'table.json'} and {out / 'pictures.png'}: a row for each model")


if __name__ == "__main__":
    tyro.cli(main)
