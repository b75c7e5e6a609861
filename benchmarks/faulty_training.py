"""train.py with a fault inside: python benchmarks/faulty_training.py FAULT -- RECIPE [--flags]

FAULT is one of

    kill:NAME:N     SIGKILL when diffusion_jax.training.files.NAME, or os.NAME, begins its Nth call
    after:NAME:N    SIGKILL when it has ended
    hang:STEP       the batch of STEP never comes
    nan:STEP        a number of the batch of STEP isn't one

A folder's file `.fault` says that it has happened: it happens once. `faults.py` calls this.
"""

import itertools
import os
import signal
import sys
import time
from pathlib import Path


def main(fault: str, argv: list[str]) -> None:
    """Installs the fault, then trains."""
    from diffusion_jax.training.cli import run_command, train_command

    mark = Path(argv[argv.index("--run-dir") + 1]).with_suffix(".fault")
    if not mark.exists():
        kind, *rest = fault.split(":")
        if kind in ("kill", "after"):
            kill_at(rest[0], int(rest[1]), mark, afterwards=kind == "after")
        else:
            spoil_batch(kind, int(rest[0]), mark)
    run_command(lambda: train_command(argv))


def kill_at(name: str, call: int, mark: Path, *, afterwards: bool) -> None:
    """SIGKILL at a call of a function of checkpoints' files."""
    from diffusion_jax.training import files

    module = files if hasattr(files, name) else os
    original = getattr(module, name)
    calls = itertools.count(1)

    def deadly(*arguments, **named):
        reached = next(calls) == call
        if reached and not afterwards:
            die(mark)
        result = original(*arguments, **named)
        if reached:
            die(mark)
        return result

    setattr(module, name, deadly)


def die(mark: Path) -> None:
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def spoil_batch(kind: str, step: int, mark: Path) -> None:
    """The batch of a step hangs, or has a NaN."""
    import jax.numpy as jnp

    from diffusion_jax.training import loop

    original = loop.device_batches

    def spoiled(experiment, source, start, *more):
        for number, batch in enumerate(original(experiment, source, start, *more), start + 1):
            if number == step:
                mark.touch()
                if kind == "hang":
                    time.sleep(3600)
                image = jnp.asarray(batch.arrays["image"]).at[0, 0, 0, 0].set(jnp.nan)
                batch = batch._replace(arrays={**batch.arrays, "image": image})
            yield batch

    loop.device_batches = spoiled


if __name__ == "__main__":
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    split = sys.argv.index("--")
    main(sys.argv[1], sys.argv[split + 1 :])
