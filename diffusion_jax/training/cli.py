"""The command lines of train.py and sample.py: parse, call, print; one sentence for an error."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from diffusion_jax.training import checkpoints
from diffusion_jax.training.distributed import said_by_all, speaks
from diffusion_jax.training.known_cli import as_flag
from diffusion_jax.training.loop import Options, check_options, check_task, train
from diffusion_jax.training.needs import pin
from diffusion_jax.training.recipes import (
    Record,
    RunMismatch,
    build,
    differences,
    find_recipe,
    load_recipe,
    parse,
)
from diffusion_jax.training.signals import Stopped, leave
from diffusion_jax.training.supervisor import supervise, supervised

DEFAULT_RECIPE = "digits"


def run_command(command: Callable[[], None]) -> None:
    """Calls a command: bad input ends it with one line and status 1, a signal n with 128 + n.

    DIFFUSION_JAX_TRACEBACK=1 shows where an error came from.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as the scripts leave it
        # No exception: one that is raised while garbage is collected, as JAX does, is ignored.
        signal.signal(signal.SIGINT, lambda *_: leave(130))
    try:
        command()
    except Stopped as stopped:
        print(f"{stopped}; a checkpoint is written, the same command goes on from there.")
        sys.exit(128 + stopped.number)
    except KeyboardInterrupt:
        leave(130)
    except (
        *(ValueError, OSError, ArithmeticError, RuntimeError, ModuleNotFoundError, MemoryError),
    ) as error:
        if os.environ.get("DIFFUSION_JAX_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {_sentence(error)}\n")  # one write: no thread comes between
        sys.exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if " " in error.strerror and not error.filename else str(error)
    if isinstance(error, MemoryError):
        return f"there isn't enough memory. {error}".strip()
    return str(error) or type(error).__name__


def train_command(argv: Sequence[str]) -> None:
    """train.py [RECIPE] [--flags]."""
    name, flags = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    path = find_recipe(name or DEFAULT_RECIPE)
    recipe = load_recipe(path)
    arguments, options = parse(recipe, Options, flags, prog=f"train.py {path}")
    experiment = recipe(**arguments)
    if options.compile_for is not None:
        from diffusion_jax.training.ahead import compile_for

        return compile_for(options.compile_for, experiment, options)
    record = Record.of(path, arguments)
    run_dir = options.run_dir or Path("runs") / path.stem

    check_options(options)
    if options.restarts and not supervised():
        command = [sys.executable, *sys.orig_argv[1:]]
        sys.exit(supervise(command, options.restarts, 60 * options.hang_minutes))
    options.job.join()
    check_agreed(record)
    check_task(experiment, options)
    make_folder(run_dir)
    if checkpoints.steps(run_dir / "checkpoints"):
        check_continues(run_dir, record, recipe)
    pin(run_dir, experiment.needs, write=speaks())
    if speaks():
        record.save(run_dir)
    train(experiment, options, run_dir)
    if not speaks():
        return
    print(f"{run_dir} is trained to step {experiment.steps}; python {experiment.use(run_dir)}")


def check_agreed(record: Record) -> None:
    """Raises ValueError, in all processes, where one was started with another recipe or other
    arguments than process 0: each of them would train, but only that one says what."""
    first, *others = said_by_all(json.dumps(dataclasses.asdict(record)))
    for process, other in enumerate(others, 1):
        changed = differences(*(Record(**json.loads(text)) for text in (first, other)))
        if other != first and changed:
            name, (zero, own) = next(iter(changed.items()))
            flag = name if name == "recipe" else as_flag(name)
            raise ValueError(
                f"process {process} was started with {flag} {own}, and process 0 with {zero}; all "
                "processes take the same arguments."
            )


def check_continues(run_dir: Path, record: Record, recipe) -> None:
    """Refuses to resume a run with arguments that would have made it another one.

    More steps are a continuation where no step before would have had another learning rate.

    Raises:
        RunMismatch: names what differs.
    """
    old = Record.load(run_dir)
    changed = differences(old, record)
    before, now = changed.pop("steps", (0, 0))
    if changed:
        name, (was, asked) = next(iter(changed.items()))
        flag = name if name == "recipe" else as_flag(name)
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RunMismatch(
            f"{run_dir} was made with {flag} {was}, not {asked}{more}; use those arguments to "
            "resume it, or another --run-dir."
        )
    if now < before:
        raise RunMismatch(
            f"{run_dir} was made with --steps {before}, and {now} is fewer; use at least "
            f"{before}, or another --run-dir."
        )
    if now == before:
        return
    shorter, longer = (
        build(recipe, {**old.arguments, "steps": n}, old.recipe).learning_rate
        for n in (before, now)
    )
    looked = range(0, before, max(1, before // 1000))
    differ = [k for k in looked if shorter(k) != longer(k)]
    if differ:
        raise RunMismatch(
            f"{run_dir} was made with --steps {before}; with {now} its learning rate would have "
            f"been another one from step {differ[0]} on, so use another --run-dir."
        )


def make_folder(path: Path) -> None:
    """Makes a folder that can be written, before any work is done.

    Raises:
        OSError: it can't.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{os.getpid()}"  # several processes may look at once
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"can't write to {path}: {error.strerror}") from None
