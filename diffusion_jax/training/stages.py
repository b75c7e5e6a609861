"""Run folders as the stages of a system."""

from pathlib import Path
from typing import Any

from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.cascade import Stage
from diffusion_jax.systems.unclip import CodeStage, Prior
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.needs import check_pinned
from diffusion_jax.training.priors import CodePriorTask
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.terminals import FromNoise
from diffusion_jax.types import Denoiser, Params, Scalar


def stage_of(
    experiment: Experiment,
    params: Params,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    shape: tuple[int, ...] | None = None,
) -> Stage:
    """A diffusion model as a stage, by default in 50 steps, of the recipe's guidance and size.

    Raises:
        ValueError: guidance of a model that can't be guided, or one that isn't of a fixed process
            from noise.
    """
    if experiment.init_schedule is not None or experiment.terminal != FromNoise():
        raise ValueError("a model whose schedule is learned, or whose x_1 needs data, is no stage.")

    def denoiser(params: Params, known: Known, guidance: Scalar | None) -> Denoiser:
        return experiment.denoiser(params, known, guidance)

    gamma = experiment.guidance if guidance is None else guidance
    if gamma != 1.0 and not experiment.conditioning.drop:
        raise ValueError(
            f"guidance {gamma} was asked for, but this model was never trained without its "
            "condition."
        )
    return Stage(
        denoiser=denoiser,
        params=params,
        process=experiment.process,
        shape=tuple(shape or experiment.image_shape),
        sampler=experiment.sampler,
        times=experiment.grid(steps or experiment.sample_steps or 50),
        guidance=None if gamma == 1.0 else gamma,
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
    check_pinned(run_dir)
    if isinstance(task, CodePriorTask):
        gamma = task.guidance if guidance is None else guidance
        return CodeStage(
            network=task.network,
            params=load_params(task, run_dir),
            condition=task.conditioning.condition,
            codes=task.fit(data_dir).codes,
            guidance=None if gamma == 1.0 else gamma,
        )
    if isinstance(task, Experiment) and not task.draws_pictures:
        return stage_of(task, load_params(task, run_dir), steps=steps, guidance=guidance)
    raise ValueError(
        f"{run_dir} holds no prior of embeddings; train one with configs/emoji_prior.py."
    )
