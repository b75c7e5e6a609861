"""How much faster batches are read than a training step consumes them:

    python benchmarks/input_pipeline.py                                  # configs/fashion_mnist.py
    python benchmarks/input_pipeline.py configs/cifar10.py --batches 50

Reading is everything up to arrays on the device: shuffling, decoding where the source does, the
recipe's augmentation, scaling, transfer; no step runs meanwhile. The same batches are read once
before, untimed: what `in_memory` decodes once is decoded by then. The step has one batch, which
lies on the device. A ratio of 5 leaves the step four fifths of the machine.
"""

import time
from pathlib import Path

import jax
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from diffusion_jax.training.loop import device_batches, first_state, planned  # noqa: E402
from diffusion_jax.training.recipes import find_recipe, load_recipe  # noqa: E402
from diffusion_jax.training.sharding import MeshOptions, shardings_of  # noqa: E402
from diffusion_jax.training.step import make_step  # noqa: E402
from diffusion_jax.training.task import Task  # noqa: E402


def main(
    recipe: tyro.conf.Positional[str] = "configs/fashion_mnist.py",
    workers: tuple[int, ...] = (0, 1, 2, 4),
    batches: int = 300,
    steps: int = 10,
    data_dir: Path | None = None,
) -> None:
    """Prints examples a second of the pipeline and of the step.

    Args:
        recipe: file or name.
        workers: threads, a row for each.
        batches: read for each row.
        steps: timed, after one that compiles.
        data_dir: folder of prepared TFDS sets.
    """
    experiment = load_recipe(find_recipe(recipe))()
    source = experiment.source("train", data_dir)
    optimizer = experiment.optimizer(experiment.learning_rate)
    mesh, like = planned(experiment, optimizer, MeshOptions())

    def read(count: int) -> tuple[float, dict[str, jax.Array]]:
        """Examples a second with so many threads, and a batch."""
        data = device_batches(experiment, source, 0, mesh, count)
        next(data)  # starts the threads
        began = time.perf_counter()
        for _ in range(batches):
            arrays = jax.block_until_ready(next(data).arrays)
        rate = batches * experiment.batch_size / (time.perf_counter() - began)
        data.close()
        return rate, arrays

    _, batch = read(max(workers))
    rates = {count: read(count)[0] for count in workers}
    consumed = step_rate(experiment, optimizer, mesh, like, batch, steps)
    device = jax.devices()[0].device_kind
    print(f"{recipe}, batch {experiment.batch_size}, {jax.device_count()} x {device}")
    print(f"a training step consumes {consumed:,.0f} examples/s\n")
    print("| workers | examples/s read | times what the step consumes |")
    print("|---|---|---|")
    for count, rate in rates.items():
        print(f"| {count} | {rate:,.0f} | {rate / consumed:.1f} |")


def step_rate(experiment: Task, optimizer, mesh, like, batch, steps: int) -> float:
    """Examples a second of the training step on one batch."""
    step = make_step(
        experiment.loss(),
        optimizer,
        like,
        ema_decay=experiment.ema_decay,
        accumulate=experiment.accumulate,
    )
    key = jax.random.key(experiment.seed)
    start = jax.jit(
        lambda key: first_state(experiment, optimizer, key), out_shardings=shardings_of(like)
    )
    state, _ = step(start(key), key, batch)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, key, batch)
    jax.block_until_ready(state)
    return steps * experiment.batch_size / (time.perf_counter() - began)


if __name__ == "__main__":
    tyro.cli(main)
