"""The training loop: batches through the step, with logs, pictures and checkpoints."""

import contextlib
import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import jax
import optax
import tyro
from jax.sharding import Mesh

from diffusion_jax.data import DeviceBatch, Source, batches, local_rows, put_on_device, save_png
from diffusion_jax.training import checkpoints
from diffusion_jax.training.distributed import JobOptions, speaks, stops
from diffusion_jax.training.flops import flops_of
from diffusion_jax.training.manifest import check_alike
from diffusion_jax.training.metrics import NonFiniteLoss, Pending, Silent, Writer
from diffusion_jax.training.plan import plan
from diffusion_jax.training.saver import Saver
from diffusion_jax.training.sharding import (
    MeshOptions,
    abstract_like,
    batch_parts,
    batched,
    check_divides,
    shardings_of,
    tree_bytes,
)
from diffusion_jax.training.signals import Stopped
from diffusion_jax.training.step import State, init_state, make_step
from diffusion_jax.training.supervisor import heartbeat
from diffusion_jax.training.task import Task
from diffusion_jax.training.tracing import traced
from diffusion_jax.types import Extra, Key, Params

LEAD = 2  # steps that the host has dispatched and the devices haven't done


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
    """newest checkpoints kept, beside the best (of the lowest loss since the one before it)"""
    restarts: int = 0
    """start again so many times after a crash or a hang, from the last good checkpoint"""
    hang_minutes: float = 30.0
    """with --restarts: minutes without a step that count as a hang"""
    workers: int = 2
    """threads that read batches ahead of the devices; 0 reads between steps"""
    trace_step: int = 0
    """step whose profile is written to the run's tensorboard/; 0 writes none"""
    compile_for: str | None = None
    """train nothing: compile the step and the sampler for TPUs that needn't be here, such as
    v5e:16x16 or v4:2x2x4, and say whether they fit and how fast they could be"""
    mesh: Annotated[MeshOptions, tyro.conf.arg(name="")] = MeshOptions()
    """which devices"""
    job: Annotated[JobOptions, tyro.conf.arg(name="")] = JobOptions()
    """which job of several processes"""


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
    show = show and speaks()
    optimizer = experiment.optimizer(experiment.learning_rate)
    source = experiment.source("train", options.data_dir)  # which keeps what planning may ask for
    experiment.check_source(source)
    mesh, like = planned(experiment, optimizer, options.mesh, options.data_dir)

    folder = run_dir / "checkpoints"
    begin = functools.partial(_begun, experiment, optimizer, like, options.data_dir)
    state, done = resume(begin, folder, like, show=show)
    if done >= experiment.steps:
        return state
    if 0 < options.trace_step <= done or options.trace_step > experiment.steps:
        raise ValueError(
            f"--trace-step is {options.trace_step}, and the steps to come are {done + 1} to "
            f"{experiment.steps}."
        )
    if done and show:
        print(f"resuming {run_dir} at step {done}", flush=True)

    step = make_step(
        experiment.loss(),
        optimizer,
        like,
        ema_decay=experiment.ema_decay,
        accumulate=experiment.accumulate,
    )
    run_step = step
    if options.trace_step > done:
        run_step = traced(step, options.trace_step - done, run_dir / "tensorboard")
    run_key = jax.random.key(experiment.seed)
    pending, beat = Pending(), heartbeat()
    losses: list[float] = []  # since the last checkpoint
    with (
        contextlib.closing(device_batches(experiment, source, done, mesh, options.workers)) as data,
        contextlib.closing(
            Writer(run_dir, done, experiment.steps, experiment.batch_size, show=show)
            if speaks()
            else Silent()
        ) as writer,
        Saver(folder, options.keep) as saver,
        stops() as stopping,
    ):

        def log(number: int) -> None:
            try:
                values = pending.collect(number)
            except NonFiniteLoss as error:
                saver.wait()
                raise NonFiniteLoss(f"{error} {last_good(folder)}") from None
            saver.check()
            if values:
                losses.append(values["loss"])
                writer.write(number, values)

        for number in range(done + 1, experiment.steps + 1):
            batch = next(data)
            if show and number == done + 1:
                flops = flops_of(step.trace(state, run_key, batch.arrays).jaxpr)
                writer.say(plan(mesh, like, experiment.batch_size, flops))
            state, metrics = run_step(state, run_key, batch.arrays)
            pending.add(number, batch.index, metrics)
            pending.keep_up(LEAD)
            writer.advance()
            beat(number)

            stop = stopping(number)
            last = number == experiment.steps
            if (number - 1) % options.log_every == 0:
                log(number - 1)  # a step late, so that the devices have the next one to do
            if last or stop or number % options.checkpoint_every == 0:
                log(number)  # a state that isn't finite is never saved
                metadata = {"next_batch": number, "seed": experiment.seed, "loss": mean(losses)}
                saver.save(number, state, metadata)
                losses.clear()
            if stop and not last:
                saver.wait()
                raise Stopped(number, stop)
            due = options.sample_every and (last or number % options.sample_every == 0)
            if due:
                picture = experiment.draw(state.ema, mesh, options.data_dir)
                if speaks() and picture is not None:
                    (run_dir / "samples").mkdir(exist_ok=True)
                    save_png(run_dir / "samples" / f"step_{number:07d}.png", picture)
    return state


def first_state(
    experiment: Task,
    optimizer: optax.GradientTransformation,
    key: Key,
    *,
    data_dir: Path | None = None,
) -> State:
    """The state before the first step; `data_dir` as of `Task.first_extra`."""
    return init_state(experiment.init_params(key), optimizer, experiment.first_extra(data_dir))


def planned(
    experiment: Task,
    optimizer: optax.GradientTransformation,
    options: MeshOptions,
    data_dir: Path | None = None,
) -> tuple[Mesh, State]:
    """The mesh, and the shapes, dtypes and shardings that the state has on it."""
    start = functools.partial(first_state, experiment, optimizer, data_dir=data_dir)
    key = jax.random.key(0)
    mesh = options.make(tree_bytes(jax.eval_shape(start, key)))
    return mesh, abstract_like(start, key, mesh)


def resume(
    begin: Callable[[], State], folder: Path, like: State, *, show: bool
) -> tuple[State, int]:
    """The newest whole checkpoint's state and step, or `begin`'s and 0; both lie as `like`."""
    restored = checkpoints.restore_latest(
        folder,
        like,
        warn=lambda text: print(f"warning: {text}", flush=True) if show else None,
    )
    if restored is None:
        return begin(), 0
    return restored.state, restored.metadata["next_batch"]


def _begun(
    experiment: Task,
    optimizer: optax.GradientTransformation,
    like: State,
    data_dir: Path | None,
) -> State:
    """`first_state`, where `like` lies; what was trained elsewhere is placed, and not computed."""
    params = experiment.pretrained()
    if params is None:
        init = jax.jit(experiment.init_params, out_shardings=shardings_of(like.params))
        params = init(jax.random.key(experiment.seed))
    else:
        check_alike(params, like.params, "the parameters to begin with")
        params = jax.device_put(params, shardings_of(like.params))
    first = jax.device_get(experiment.first_extra(data_dir))  # which may lie on one device
    extra = jax.device_put(first, shardings_of(like.extra))

    def start(params: Params, extra: Extra) -> State:
        return init_state(params, optimizer, extra)

    return jax.jit(start, out_shardings=shardings_of(like))(params, extra)


def device_batches(
    experiment: Task, source: Source, start: int, mesh: Mesh, workers: int = 2
) -> Generator[DeviceBatch, None, None]:
    """The experiment's batches from number `start` on, cut along the mesh."""
    host = batches(
        source,
        experiment.batch_size,
        seed=experiment.seed,
        start=start,
        rows=local_rows(batched(mesh), experiment.batch_size),
        augment=experiment.augment,
        features=experiment.features,
        threads=workers,
    )
    return put_on_device(host, batched(mesh))


def check_task(task: Task, options: Options) -> None:
    """Raises ValueError, before any work, for numbers out of range and parts that don't fit."""
    check_options(options)
    task.check()
    check_divides(task.batch_size, batch_parts(options.mesh.make()), parts=task.accumulate)


def check_options(options: Options) -> None:
    """Raises ValueError for an option out of range."""
    least = {"log_every": 1, "checkpoint_every": 1, "sample_every": 0, "keep": 1}
    least |= {"restarts": 0, "workers": 0, "trace_step": 0}
    for name, minimum in least.items():
        value = getattr(options, name)
        if value < minimum:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is {value}; it must be at least {minimum}.")
    if not options.hang_minutes > 0:
        raise ValueError(f"--hang-minutes is {options.hang_minutes}; it must be more than 0.")


def last_good(folder: Path) -> str:
    """A sentence about the newest checkpoint."""
    good = checkpoints.steps(folder)
    if not good:
        return "There is no checkpoint yet."
    return f"The last good checkpoint is of step {good[-1]}, in {folder}."
