"""Run folders as the stages of a system."""

import functools
from pathlib import Path
from typing import Any

from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.image_conditioning import low_resolution
from diffusion_jax.systems.cascade import Stage, as_told
from diffusion_jax.systems.latent import LatentDiffusion
from diffusion_jax.systems.unclip import CodeStage, Prior
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import codec_with
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
    augment: float = 0.0,
) -> Stage:
    """A diffusion model as a stage, by default in 50 steps, of the recipe's guidance and size.

    Args:
        experiment: the model.
        params: its network's.
        steps, guidance, shape: of what it draws.
        augment: of an upsampler, the level of the noise that the small picture gets.

    Raises:
        ValueError: guidance of a model that can't be guided, noise for one that enlarges nothing,
            a model that isn't of a fixed process from noise, or one of latents whose shape isn't
            given.
    """
    if isinstance(experiment, LatentExperiment) and tuple(shape or ()) != experiment.shape:
        raise ValueError("a model of latents draws no pictures by itself: `load_latent_diffusion`.")
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
    small = low_resolution(experiment.conditioning)
    if augment and small is None:
        raise ValueError("augment is for a model that enlarges pictures.")

    return Stage(
        denoiser=denoiser,
        params=params,
        process=experiment.process,
        shape=tuple(shape or experiment.shape),
        sampler=experiment.sampler,
        times=experiment.grid(steps or experiment.sample_steps or 50),
        guidance=None if gamma == 1.0 else gamma,
        tell=functools.partial(small.noised, level=augment) if augment and small else as_told,
    )


def load_stage(
    run_dir: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    shape: tuple[int, ...] | None = None,
    augment: float = 0.0,
) -> Stage:
    """A run of a diffusion model as a stage; arguments of `stage_of`.

    Raises:
        ValueError: the run is of something else, or as `stage_of`.
    """
    task = load_task(run_dir)
    if not isinstance(task, Experiment):
        raise ValueError(f"{run_dir} holds no diffusion model.")
    params = load_params(task, run_dir)
    how: Any = {"steps": steps, "guidance": guidance, "shape": shape, "augment": augment}
    return stage_of(task, params, **how)


def load_latent_diffusion(
    run_dir: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    data_dir: Path | None = None,
) -> LatentDiffusion:
    """A run of a model of latents with its codec; pictures that it is told of become `in_latents`.

    Args:
        run_dir: such as of configs/emoji_text.py.
        steps, guidance: as of `stage_of`.
        data_dir: of prepared TFDS sets, where the latents' scale isn't kept yet.

    Raises:
        ValueError: the run is of something else, or its codec has changed since; or as `stage_of`.
    """
    task = load_task(run_dir)
    if not isinstance(task, LatentExperiment):
        raise ValueError(f"{run_dir} holds no model of latents.")
    check_pinned(run_dir)
    frozen = task.frozen(data_dir)
    if frozen.keys() != {"codec"}:
        raise ValueError(f"{run_dir} isn't drawn from by itself; python {task.use(run_dir)}.")
    params = load_params(task, run_dir)
    stage = stage_of(task, params, steps=steps, guidance=guidance, shape=task.shape)
    return LatentDiffusion(stage, codec_with(task.codec, frozen["codec"]))


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
