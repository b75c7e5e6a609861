"""Metrics on their way out: fetched late, checked, averaged, written, shown."""

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from diffusion_jax.data.files import write_atomically


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient stopped being a number."""


class Entry(NamedTuple):
    """One step's metrics, on the devices until they're needed."""

    step: int
    records: np.ndarray  # in its batch
    values: Mapping[str, Any]


class Pending:
    """Metrics of steps that were dispatched and not yet looked at, so that no step waits."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def add(self, step: int, records: np.ndarray, values: Mapping[str, Any]) -> None:
        for leaf in values.values():
            leaf.copy_to_host_async()
        self._entries.append(Entry(step, records, values))

    def keep_up(self, lead: int) -> None:
        """Waits, without fetching, until no more than `lead` steps are still to be computed.

        Without it the host would be ahead of the devices by all the steps between two looks, and
        would notice a signal so many steps late.
        """
        if len(self._entries) > lead:
            jax.block_until_ready(self._entries[-1 - lead].values)

    def collect(self, through: int) -> dict[str, float]:
        """Fetches the steps up to `through`, and returns their means.

        Raises:
            NonFiniteLoss: at the first step whose loss or gradient isn't finite.
        """
        fetched = []
        while self._entries and self._entries[0].step <= through:
            entry = self._entries.popleft()
            values = jax.device_get(dict(entry.values))
            if not values.pop("finite"):
                records = ", ".join(map(str, entry.records.tolist()))
                raise NonFiniteLoss(
                    f"the loss or its gradient isn't finite at step {entry.step} (loss "
                    f"{float(values['loss']):.4g}, gradient norm {float(values['grad_norm']):.4g});"
                    f" its batch held the records {records}."
                )
            fetched.append(values)
        if not fetched:
            return {}
        return {name: float(np.mean([v[name] for v in fetched])) for name in fetched[0]}


class Silent:
    """The Writer of a process that leaves writing to another."""

    def advance(self) -> None: ...

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


class Writer:
    """`metrics.jsonl`, TensorBoard events, and the progress bar (or plain lines).

    Lines after the first step of a resumed run are removed: each step is logged once.
    """

    def __init__(self, run_dir: Path, start: int, steps: int, batch_size: int, *, show: bool):
        from tensorboardX import SummaryWriter

        self._path = run_dir / "metrics.jsonl"
        self._rewind(start)
        self._file = open(self._path, "a", buffering=1)  # noqa: SIM115 (closed by close)
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)
        self._steps, self._batch_size = steps, batch_size
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=None if show else True,
        )
        self._plain = show and self._bar.disable
        self._last = (start, time.perf_counter())

    def _rewind(self, start: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= start:
                    kept.append(line + "\n")
            except (ValueError, KeyError):
                pass  # the half line of a killed run
        write_atomically(self._path, "".join(kept).encode())

    def advance(self) -> None:
        """One step was dispatched."""
        self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the means of a window that ends at `step`."""
        before, then = self._last
        now = time.perf_counter()
        rate = (step - before) * self._batch_size / (now - then)
        self._last = (step, now)
        self._file.write(json.dumps({"step": step, **values, "examples_per_second": rate}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.add_scalar("examples_per_second", rate, step)
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}, {rate:,.0f} examples/s")
        if self._plain:
            left = (self._steps - step) * self._batch_size / rate
            print(
                f"step {step}/{self._steps}  loss {values['loss']:.4f}  "
                f"{rate:,.0f} examples/s  {tqdm.format_interval(left)} left",
                flush=True,
            )

    def say(self, text: str) -> None:
        """A line that doesn't tear the bar."""
        if self._plain:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
        self._file.close()
        self._board.close()
