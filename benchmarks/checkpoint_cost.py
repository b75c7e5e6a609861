"""What a checkpoint costs training: python benchmarks/checkpoint_cost.py [RECIPE]

Windows of steps take turns: in every other one a checkpoint is begun, as the training loop begins
it, and is whole on disk before the window ends. A window with one less a window without is what a
checkpoint costs; against so many steps between two of them it is a share of the training time.
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.training.loop import device_batches, first_state, planned  # noqa: E402
from diffusion_jax.training.recipes import find_recipe, load_recipe  # noqa: E402
from diffusion_jax.training.saver import Saver  # noqa: E402
from diffusion_jax.training.sharding import MeshOptions, shardings_of, tree_bytes  # noqa: E402
from diffusion_jax.training.step import make_step  # noqa: E402


def main(
    recipe: tyro.conf.Positional[str] = "fashion_mnist",
    every: int = 500,
    window: int = 24,
    rounds: int = 7,
    data_dir: Path | None = None,
) -> None:
    """Prints the cost of one checkpoint, and its share of the training time.

    Args:
        recipe: file or name.
        every: steps between checkpoints in training.
        window: steps timed together.
        rounds: windows of each kind.
        data_dir: folder of prepared TFDS sets.
    """
    experiment = load_recipe(find_recipe(recipe))()
    optimizer = experiment.optimizer(experiment.learning_rate)
    mesh, like = planned(experiment, optimizer, MeshOptions())
    state = jax.jit(
        lambda key: first_state(experiment, optimizer, key), out_shardings=shardings_of(like)
    )(jax.random.key(0))
    step = make_step(experiment.loss(), optimizer, like)
    batch = next(device_batches(experiment, experiment.source("train", data_dir), 0, mesh)).arrays
    key, number = jax.random.key(0), 0

    def timed(saver: Saver | None) -> tuple[float, float]:
        """Seconds of a window, and of what it waited for in `save`."""
        nonlocal state, number
        waited = 0.0
        began = time.perf_counter()
        for place in range(window):
            state, metrics = step(state, key, batch)
            jax.block_until_ready(metrics)
            if saver and place == 0:
                number += 1
                before = time.perf_counter()
                saver.save(number, state, {"loss": 0.0})
                waited = time.perf_counter() - before
        if saver:
            saver.wait()
        return time.perf_counter() - began, waited

    with tempfile.TemporaryDirectory() as folder, Saver(Path(folder)) as saver:
        timed(saver)  # compiles, and imports what writes
        plain, saved = [], []
        for _ in range(rounds):
            plain.append(timed(None)[0])
            saved.append(timed(saver))
    cost = statistics.median(s - p for (s, _), p in zip(saved, plain, strict=True))
    one = statistics.median(plain) / window
    print(f"{recipe}: state of {tree_bytes(like) / 1e6:.1f} MB, a step takes {1e3 * one:.0f} ms")
    print(f"a checkpoint costs {1e3 * cost:.0f} ms, of which training waits", end=" ")
    print(f"{1e3 * statistics.median(w for _, w in saved):.0f} ms for the copy;")
    print(f"one every {every} steps: {100 * cost / (every * one):.2f} % of the training time")


if __name__ == "__main__":
    tyro.cli(main)
