"""Run folders as the stages of a system."""

from pathlib import Path
from typing import Any

from diffusion_jax.systems.cascade import Known, Stage
from diffusion_jax.systems.unclip import CodeStage, Prior
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.priors import CodePriorTask
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.types import Denoiser, Params, Scalar


def stage_of(
    experiment: Experiment,
    params: Params,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    shape: tuple[int, ...] | None = None,
) -> Stage:
    """A diffusion model as a stage, by default with the recipe's steps, guidance and size."""
    steps = steps or experiment.sample_steps or 25

    def denoiser(params: Params, known: Known, guidance: Scalar) -> Denoiser:
        return experiment.denoiser(params, known, guidance if guidable else None)

    guidable = bool(experiment.conditioning.drop)
    return Stage(
        denoiser=denoiser,
        params=params,
        process=experiment.process,
        shape=tuple(shape or experiment.image_shape),
        sampler=experiment.sampler,
        times=experiment.grid(steps),
        guidance=experiment.guidance if guidance is None else guidance,
    )


def load_stage(
    run_dir: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    shape: tuple[int, ...] | None = None,
) -> Stage:
    """A run of a diffusion model as a stage.

    Raises:
        ValueError: the run is of something else.
    """
    task = load_task(run_dir)
    if not isinstance(task, Experiment):
        raise ValueError(f"{run_dir} holds no diffusion model.")
    params = load_params(task, run_dir)
    return stage_of(task, params, steps=steps, guidance=guidance, shape=shape)


def load_prior(
    run_dir: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    data_dir: Path | None = None,
) -> Prior:
    """A run of either prior as a stage.

    Raises:
        ValueError: the run is of something else.
    """
    task: Any = load_task(run_dir)
    if isinstance(task, CodePriorTask):
        return CodeStage(
            network=task.network,
            params=load_params(task, run_dir),
            condition=task.conditioning.condition,
            codes=task.fit(data_dir).codes,
            guidance=task.guidance if guidance is None else guidance,
        )
    if isinstance(task, Experiment) and not task.draws_pictures:
        return stage_of(task, load_params(task, run_dir), steps=steps, guidance=guidance)
    raise ValueError(
        f"{run_dir} holds no prior of embeddings; train one with configs/emoji_prior.py."
    )
