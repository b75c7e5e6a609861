"""What a run folder holds, as objects: its Experiment and its parameters."""

from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from diffusion_jax.training import checkpoints
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.recipes import Record, build, find_recipe, load_recipe
from diffusion_jax.training.sharding import abstract_like, data_mesh
from diffusion_jax.training.task import Task
from diffusion_jax.types import Params


def load_experiment(run_dir: Path, recipe: Path | None = None) -> Experiment:
    """The Experiment of a run folder, by the recipe in configs/ or the one that is named.

    Raises:
        ValueError: the recipe trains something that can't be sampled from.
    """
    task = load_task(run_dir, recipe)
    if not (isinstance(task, Experiment) and task.draws_pictures):
        raise ValueError(
            f"{run_dir} holds no diffusion model of pictures; it's for python {task.use(run_dir)}"
        )
    return task


def load_task(run_dir: Path, recipe: Path | None = None) -> Task:
    """What a run folder trained, by the recipe in configs/ or the one that is named."""
    record = Record.load(run_dir)
    if recipe is None:
        return record.rebuild()
    return build(load_recipe(find_recipe(str(recipe))), record.arguments, str(recipe))


def load_params(
    experiment: Task,
    run_dir: Path,
    weights: str = "ema",
    step: int | Literal["best"] | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """The averaged ("ema") or raw parameters of a run; raises as `restore_params`."""
    return restore_params(experiment, run_dir, weights, step, mesh).state


def restore_params(
    experiment: Task,
    run_dir: Path,
    weights: str = "ema",
    step: int | Literal["best"] | None = None,
    mesh: Mesh | None = None,
) -> checkpoints.Restored:
    """The averaged ("ema") or raw parameters of a run, and the step that they are of.

    Args:
        experiment: what the run trained.
        run_dir: the run's folder.
        weights: "ema" or "raw".
        step: the checkpoint's, or "best": of the lowest loss; by default the newest.
        mesh: where they go; by default all devices.

    Raises:
        FileNotFoundError: the run has no checkpoint yet.
        CheckpointMismatch: its checkpoint is of another architecture.
    """
    like = abstract_like(experiment.init_params, jax.random.key(0), mesh or data_mesh())
    prefix = "ema" if weights == "ema" else "params"
    folder = run_dir / "checkpoints"
    if step == "best":
        step = checkpoints.best(folder)
    restored = checkpoints.restore_part(
        folder, like, prefix, step=step, warn=lambda text: print(f"warning: {text}")
    )
    if restored is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; train first.")
    return restored
