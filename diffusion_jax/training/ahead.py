"""Compiling a recipe for TPUs that aren't there: whether it fits, and how fast it could be.

The training step and the sampler are the ones that `train` and `sample_batches` run, compiled by
the TPU's own compiler for a topology such as "v5e:16x16". Nothing is computed and no data are
read, but for other networks that a step calls. `ahead_report.py` says what comes out.
"""

import contextlib
import functools
import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.data import Source, from_arrays
from diffusion_jax.training import ahead_report as report
from diffusion_jax.training.ahead_report import Compiled
from diffusion_jax.training.chips import chip_of
from diffusion_jax.training.costs import cost_of
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.flops import count_flops
from diffusion_jax.training.hlo import parse
from diffusion_jax.training.loop import Options, first_state
from diffusion_jax.training.sampling import make_sample
from diffusion_jax.training.sharding import (
    abstract_like,
    batch_parts,
    batched,
    check_divides,
    tree_bytes,
)
from diffusion_jax.training.step import make_step
from diffusion_jax.training.task import Task

# libtpu reads these when it is loaded: nothing is asked of the network, little is said, and others
# may compile at the same time.
_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def topology_devices(topology: str) -> Sequence[Any]:
    """The chips of a topology such as "v5e:16x16" or "v4:2x2x4", to compile for.

    The two cores of a v4 or v5p chip are one device, as they are on Cloud TPU.

    Raises:
        ValueError: there is no such topology.
        ModuleNotFoundError: libtpu, the TPU's compiler, isn't installed.
    """
    chip = chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ModuleNotFoundError(
            "compiling for a TPU needs its compiler: pip install 'diffusion_jax[tpu]'"
        )
    from jax.experimental import topologies

    cores = {"chip_config_name": "megacore"} if chip.axes == 3 else {}
    try:
        with _environment(_QUIET):
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **cores)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition(": ")[2].splitlines()[0]
        raise ValueError(f"there is no TPU topology {topology!r}: {reason}.") from None
    return found.devices


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables, where they aren't set: others take some of them for a TPU's."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def abstract_step(
    task: Task, mesh: Mesh, data_dir: Path | None = None
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The training step, and shapes, dtypes and shardings of its arguments."""
    optimizer = task.optimizer(task.learning_rate)
    start = functools.partial(first_state, task, optimizer, data_dir=data_dir)
    like = abstract_like(start, jax.random.key(0), mesh)
    step = make_step(
        task.loss(), optimizer, like, ema_decay=task.ema_decay, accumulate=task.accumulate
    )
    return step, (like, _key(), abstract_batch(task, mesh))


def compile_step(task: Task, mesh: Mesh, data_dir: Path | None = None) -> Compiled:
    """The training step; `data_dir` as of `Task.first_extra`."""
    step, arguments = abstract_step(task, mesh, data_dir)
    return compiled(step, *arguments)


def compile_sample(
    experiment: Experiment, mesh: Mesh, batch_size: int, steps: int, data_dir: Path | None = None
) -> Compiled:
    """The sampler of an experiment, on a grid of `steps` steps, with its default guidance."""
    blank = replace(experiment, source=functools.partial(_blank_source, experiment))
    guided = experiment.guidance != 1.0
    draw = make_sample(blank, mesh, guided=guided, data_dir=data_dir)
    shape = (batch_size, *experiment.image_shape)
    params = abstract_like(experiment.init_params, jax.random.key(0), mesh)
    arrays, cut = abstract(draw.args[0]), batched(mesh)
    known = abstract(jax.eval_shape(lambda: experiment.conditioning.blank(shape)), cut)
    index = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=cut)
    times = abstract(experiment.grid(steps))
    gamma = jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)
    sampler = abstract(experiment.sampler)
    return compiled(draw.func, arrays, params, sampler, _key(), times, gamma, index, known)


def compiled(function: Any, *arguments: Any) -> Compiled:
    """Compiles a jitted function for where its arguments, `jax.ShapeDtypeStruct`s, lie.

    Raises:
        RuntimeError: the compiler refuses it for another reason than its memory.
    """
    flops = count_flops(function, *arguments)
    lowered = function.lower(*arguments)
    start = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = memory_asked(str(error))
        if needed is None:
            raise
        return Compiled(None, needed, flops, 0.0, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    needed = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    reported = (program.cost_analysis() or {}).get("flops", 0.0)
    return Compiled(cost_of(parse(program.as_text())), needed, flops, reported, seconds)


def memory_asked(message: str) -> int | None:
    """The bytes that the compiler says a program needs when it refuses it; else None.

    >>> memory_asked("RESOURCE_EXHAUSTED: Used 20.50G of 15.75G hbm. Exceeded by 4.75G.")
    22011707392
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"(?:Used |\()([\d.]+)([KMG])", message)
    return int(float(found.group(1)) * 1024 ** (1 + "KMG".index(found.group(2)))) if found else 0


def abstract_batch(task: Task, mesh: Mesh) -> dict[str, Any]:
    """A batch as `device_batches` would put it on this mesh; of data with labels, if unused."""
    return abstract(jax.eval_shape(lambda: task.blank(task.batch_size)), batched(mesh))


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def abstract(tree: Any, sharding: Any = None) -> Any:
    """The shapes and dtypes of a tree of arrays, which lie as `sharding` says."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding), tree
    )


def _blank_source(task: Experiment, split: str, data_dir: Path | None) -> Source:
    """Black pictures, where sampling starts from data: only their shape is compiled."""
    count = 1024
    classes = getattr(task.conditioning, "classes", 0)
    images = np.zeros((count, *task.image_shape), np.uint8)
    labels = np.arange(count) % classes if classes else None
    return from_arrays("black pictures", images, labels, classes=classes or None)


def compile_for(topology: str, task: Task, options: Options) -> None:
    """Compiles a recipe for a topology, and prints what that says: `--compile-for`.

    Args:
        topology: such as "v5e:16x16".
        task: an `Experiment`'s sampler is compiled too.
        options: of the mesh.

    Raises:
        ValueError: there is no such topology, or the batch or the mesh doesn't divide it.
        ModuleNotFoundError: libtpu isn't installed.
    """
    chip = chip_of(topology)
    jax.config.update("jax_platforms", "cpu")  # the compiler needs no TPU, and JAX no other device
    devices = topology_devices(topology)
    data_dir, optimizer = options.data_dir, task.optimizer(task.learning_rate)
    start = functools.partial(first_state, task, optimizer, data_dir=data_dir)
    whole = tree_bytes(jax.eval_shape(start, jax.random.key(0)))
    mesh = options.mesh.make(whole, devices, chip.usable)
    check_divides(task.batch_size, batch_parts(mesh), parts=task.accumulate)
    task.check()

    state = abstract_like(start, jax.random.key(0), mesh)
    print(report.heading(topology, mesh, state), flush=True)
    step = compile_step(task, mesh, data_dir)
    print(report.program("training step", step, chip, mesh, task.batch_size), flush=True)
    if isinstance(task, Experiment):
        batch_size, steps = math.lcm(8, batch_parts(mesh)), task.sample_steps or 25
        drawn = compile_sample(task, mesh, batch_size, steps, data_dir)
        name = f"sampling in {steps} steps"
        print(report.program(name, drawn, chip, mesh, batch_size), flush=True)
