"""The training loop: batches through the step, with logs, pictures and checkpoints."""

import contextlib
import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from diffusion_jax.data import DeviceBatch, Source, batches, put_on_device, save_png
from diffusion_jax.training import checkpoints
from diffusion_jax.training.experiment import Experiment, Task, check_seed
from diffusion_jax.training.metrics import NonFiniteLoss, Pending, Writer
from diffusion_jax.training.sampling import sample_grid
from diffusion_jax.training.sharding import (
    abstract_like,
    batched,
    check_divides,
    data_mesh,
    replicated,
)
from diffusion_jax.training.signals import Stopped, noted_signals
from diffusion_jax.training.step import State, init_state, make_step


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here changes what is learned."""

    run_dir: Path | None = None
    """the run's folder (default: runs/ and the recipe's name)"""
    data_dir: Path | None = None
    """folder of prepared TFDS sets (default: $DIFFUSION_JAX_DATA, then TFDS's own)"""
    log_every: int = 100
    """steps between lines of metrics"""
    checkpoint_every: int = 1000
    """steps between checkpoints"""
    sample_every: int = 1000
    """steps between sample grids; 0 draws none"""
    keep: int = 2
    """checkpoints kept"""
    devices: int | None = None
    """devices to use (default: all)"""


def train(experiment: Task, options: Options, run_dir: Path, *, show: bool = True) -> State:
    """Trains up to `experiment.steps`, from the newest whole checkpoint in `run_dir` if any.

    The state after step k depends on the experiment alone, however often the run was stopped
    and resumed on the same devices.

    Args:
        experiment: what to train.
        options: how often to log, to draw and to save.
        run_dir: exists; its `checkpoints/`, `metrics.jsonl`, `tensorboard/` and `samples/`
            are written.
        show: progress on the terminal.

    Returns:
        The state after the last step.

    Raises:
        ValueError: an option is out of range, the batch doesn't divide among devices and
            micro-batches, the data don't have the experiment's shape or labels, or the
            schedule doesn't end in noise.
        NonFiniteLoss: nothing is saved after the last checkpoint before it.
        Stopped: SIGINT or SIGTERM came, and a checkpoint was written.
    """
    check_task(experiment, options)
    mesh = data_mesh(options.devices)
    source = experiment.source("train", options.data_dir)
    check_source(experiment, source)

    optimizer = experiment.optimizer(experiment.learning_rate)
    folder = run_dir / "checkpoints"
    state, done = resume(experiment, optimizer, folder, mesh, show=show)
    if done >= experiment.steps:
        return state
    if done and show:
        print(f"resuming {run_dir} at step {done}", flush=True)

    step = make_step(
        experiment.loss(),
        optimizer,
        mesh,
        ema_decay=experiment.ema_decay,
        accumulate=experiment.accumulate,
    )
    run_key = jax.random.key(experiment.seed)
    pending = Pending()
    with (
        contextlib.closing(device_batches(experiment, source, done, mesh)) as data,
        contextlib.closing(
            Writer(run_dir, done, experiment.steps, experiment.batch_size, show=show)
        ) as writer,
        noted_signals() as arrived,
    ):

        def log(number: int) -> None:
            try:
                values = pending.collect(number)
            except NonFiniteLoss as error:
                raise NonFiniteLoss(f"{error} {last_good(folder)}") from None
            if values:
                writer.write(number, values)

        for number in range(done + 1, experiment.steps + 1):
            batch = next(data)
            state, metrics = step(state, run_key, batch.arrays)
            pending.add(number, batch.index, metrics)
            writer.advance()

            stop = arrived()
            last = number == experiment.steps
            if (number - 1) % options.log_every == 0:
                log(number - 1)  # a step late, so that the devices have the next one to do
            if last or stop or number % options.checkpoint_every == 0:
                log(number)  # a state that isn't finite is never saved
                metadata = {"next_batch": number, "seed": experiment.seed}
                checkpoints.save(folder, number, state, metadata, keep=options.keep)
            if stop and not last:
                raise Stopped(number, stop)
            due = options.sample_every and (last or number % options.sample_every == 0)
            if due and isinstance(experiment, Experiment):
                (run_dir / "samples").mkdir(exist_ok=True)
                picture = sample_grid(experiment, state.ema, mesh, data_dir=options.data_dir)
                save_png(run_dir / "samples" / f"step_{number:07d}.png", picture)
    return state


def resume(
    experiment: Task,
    optimizer: optax.GradientTransformation,
    folder: Path,
    mesh: Mesh,
    *,
    show: bool,
) -> tuple[State, int]:
    """The newest whole checkpoint's state and step, or a new state and 0."""

    def start(key) -> State:
        return init_state(experiment.init_params(key), optimizer, experiment.init_extra())

    key = jax.random.key(experiment.seed)
    restored = checkpoints.restore_latest(
        folder,
        abstract_like(start, key, mesh),
        warn=lambda text: print(f"warning: {text}", flush=True) if show else None,
    )
    if restored is None:
        return jax.jit(start, out_shardings=replicated(mesh))(key), 0
    return restored.state, restored.metadata["next_batch"]


def device_batches(
    experiment: Task, source: Source, start: int, mesh: Mesh
) -> Generator[DeviceBatch, None, None]:
    """The experiment's batches from number `start` on, cut along the mesh."""
    host = batches(
        source,
        experiment.batch_size,
        seed=experiment.seed,
        start=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        augment=experiment.augment,
        features=tuple(f for f in experiment.conditioning.features if f not in ("image", "label")),
    )
    return put_on_device(host, batched(mesh))


def check_task(task: Task, options: Options) -> None:
    """Raises ValueError, before any work, for numbers out of range and parts that don't fit."""
    check_options(options)
    for name in ("steps", "accumulate"):
        if getattr(task, name) < 1:
            raise ValueError(f"{name} is {getattr(task, name)}; it must be at least 1.")
    check_divides(task.batch_size, data_mesh(options.devices).size, parts=task.accumulate)
    check_seed(task.seed)
    if not 0 <= task.ema_decay < 1:
        raise ValueError(f"ema_decay is {task.ema_decay}; it must be at least 0 and less than 1.")
    for step in (0, task.steps // 2, task.steps):
        rate = float(task.learning_rate(step))
        if not 0 <= rate < math.inf:
            raise ValueError(f"the learning rate of step {step} is {rate:g}; it must be from 0 up.")
    drop = task.conditioning.drop
    if not 0 <= drop <= 1:
        raise ValueError(f"conditions are dropped with probability {drop}; it is from 0 to 1.")
    task.check()


def check_source(experiment: Task, source: Source) -> None:
    """Raises ValueError unless the data are what the network is made for."""
    if tuple(source.image_shape) != tuple(experiment.image_shape):
        raise ValueError(
            f"{source.name} has pictures of {source.image_shape}, and the recipe's network is "
            f"for {experiment.image_shape}."
        )
    experiment.conditioning.check_source(source.name, source.classes)


def check_options(options: Options) -> None:
    """Raises ValueError for an option out of range."""
    least = {"log_every": 1, "checkpoint_every": 1, "sample_every": 0, "keep": 1}
    for name, minimum in least.items():
        value = getattr(options, name)
        if value < minimum:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is {value}; it must be at least {minimum}.")


def last_good(folder: Path) -> str:
    """A sentence about the newest checkpoint."""
    good = checkpoints.steps(folder)
    if not good:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is of step {good[-1]}, in {folder}."
