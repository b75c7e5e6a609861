"""The training loop: batches through the step, with logs, pictures and checkpoints."""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.data import batches, grid, put_on_device, save_png, to_uint8
from diffusion_jax.samplers import DDIM
from diffusion_jax.training import checkpoints
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.metrics import NonFiniteLoss, Pending, Writer
from diffusion_jax.training.sampling import cycle_labels, sample_batches
from diffusion_jax.training.sharding import batched, check_divides, data_mesh, replicated
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


class Stopped(Exception):
    """A signal ended the run after a checkpoint.

    Attributes:
        step: where it stands.
        signal: which one.
    """

    def __init__(self, step: int, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name} at step {step}")
        self.step, self.signal = step, number


def train(experiment: Experiment, options: Options, run_dir: Path, *, show: bool = True) -> State:
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
        ValueError: the batch doesn't divide among devices and micro-batches, the data don't
            have the experiment's shape or labels, or the schedule doesn't end in noise.
        NonFiniteLoss: nothing is saved after the last checkpoint before it.
        Stopped: SIGINT or SIGTERM came, and a checkpoint was written.
    """
    mesh = data_mesh(options.devices)
    check_divides(experiment.batch_size, mesh, parts=experiment.accumulate)
    experiment.process.prior(np.zeros(1, np.float32))
    source = experiment.source("train", options.data_dir)
    _check_source(experiment, source)

    optimizer = experiment.optimizer(experiment.learning_rate)

    def start(key) -> State:
        return init_state(experiment.init_params(key), optimizer)

    run_key = jax.random.key(experiment.seed)
    folder = run_dir / "checkpoints"
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
        jax.eval_shape(start, run_key),
    )
    restored = checkpoints.restore_latest(folder, like, warn=_warn(show))
    if restored is None:
        state = jax.jit(start, out_shardings=replicated(mesh))(run_key)
    else:
        state = restored.state
        if show:
            print(f"resuming {run_dir} at step {restored.step}", flush=True)
    done = 0 if restored is None else restored.step
    if done >= experiment.steps:
        return state

    step = make_step(
        experiment.loss(),
        optimizer,
        mesh,
        ema_decay=experiment.ema_decay,
        accumulate=experiment.accumulate,
    )
    data = put_on_device(
        batches(
            source,
            experiment.batch_size,
            seed=experiment.seed,
            start=done if restored is None else restored.metadata["next_batch"],
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            augment=experiment.augment,
        ),
        batched(mesh),
    )
    writer = Writer(run_dir, done, experiment.steps, experiment.batch_size, show=show)
    pending = Pending()

    def save(state: State, number: int) -> None:
        pending.collect(number)  # never save what isn't finite
        metadata = {"next_batch": number, "seed": experiment.seed}
        checkpoints.save(folder, number, state, metadata, keep=options.keep)

    def draw(state: State, number: int) -> None:
        picture = sample_grid(experiment, state, mesh)
        (run_dir / "samples").mkdir(exist_ok=True)
        save_png(run_dir / "samples" / f"step_{number:07d}.png", picture)

    try:
        with contextlib.closing(data), _signals() as arrived:
            for number in range(done + 1, experiment.steps + 1):
                batch = next(data)
                state, metrics = step(state, run_key, batch.arrays)
                pending.add(number, batch.index, metrics)
                writer.advance()
                last = number == experiment.steps
                # One step late, so that the device always has the next step to do.
                if (number - 1) % options.log_every == 0 and number - 1 > done:
                    writer.write(number - 1, pending.collect(number - 1))
                if last:
                    writer.write(number, pending.collect(number))
                if last or arrived() or number % options.checkpoint_every == 0:
                    save(state, number)
                if options.sample_every and (last or number % options.sample_every == 0):
                    draw(state, number)
                if arrived() and not last:
                    raise Stopped(number, arrived())
    except NonFiniteLoss as error:
        good = checkpoints.steps(folder)
        kept = f"step {good[-1]} in {folder}" if good else "none yet"
        raise NonFiniteLoss(f"{error} Nothing was saved since: the last good checkpoint is {kept}.")
    finally:
        writer.close()
    return state


def sample_grid(experiment: Experiment, state: State, mesh, rows: int = 4) -> np.ndarray:
    """A picture of what the averaged parameters draw: uint8, `rows` of each class."""
    columns = experiment.labels.classes or 8
    labels = cycle_labels(experiment, rows * columns)
    size = math.lcm(8, mesh.shape["data"])
    pictures = sample_batches(
        experiment,
        state.ema,
        DDIM(),
        labels,
        steps=25,
        guidance=experiment.guidance,
        seed=experiment.seed,
        batch_size=size,
        mesh=mesh,
    )
    scale = max(1, 32 // experiment.image_shape[0])
    return grid(to_uint8(np.concatenate(list(pictures))), columns=columns, scale=scale)


def _check_source(experiment: Experiment, source) -> None:
    if tuple(source.image_shape) != tuple(experiment.image_shape):
        raise ValueError(
            f"{source.name} has pictures of {source.image_shape}, and the recipe's network is "
            f"for {experiment.image_shape}."
        )
    if experiment.labels.classes and source.classes != experiment.labels.classes:
        raise ValueError(
            f"{source.name} has {source.classes} classes, and the recipe expects "
            f"{experiment.labels.classes}."
        )


def _warn(show: bool) -> Callable[[str], None]:
    return (lambda text: print(f"warning: {text}", flush=True)) if show else (lambda text: None)


@contextlib.contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Yields a function: which of SIGINT and SIGTERM arrived, 0 for none.

    The first one is only noted; a second Ctrl-C interrupts at once.
    """
    noted = [0]

    def note(number, frame):
        if noted[0] and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted[0] = number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: noted[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
