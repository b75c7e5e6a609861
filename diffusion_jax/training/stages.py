"""Run folders as the stages of a system."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Words
from diffusion_jax.models.conditioning import Known
from diffusion_jax.models.image_conditioning import low_resolution
from diffusion_jax.systems.cascade import Stage, as_told
from diffusion_jax.systems.latent import LatentDiffusion
from diffusion_jax.systems.unclip import CodeStage, Prior, Prompts, Unclip
from diffusion_jax.training.contrastive import Contrastive, token_encoder
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import codec_with
from diffusion_jax.training.needs import check_pinned, pinned
from diffusion_jax.training.priors import CodePriorTask
from diffusion_jax.training.runs import load_experiment, load_params, load_task
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
    if small and not 0 <= augment <= small.noise:
        raise ValueError(
            f"augment is {augment:g}; this model was trained with noise from 0 to {small.noise:g}."
        )

    return Stage(
        denoiser=denoiser,
        params=params,
        process=experiment.process,
        shape=tuple(shape or experiment.shape),
        sampler=experiment.sampler,
        times=experiment.grid((experiment.sample_steps or 50) if steps is None else steps),
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
        ValueError: the run is of something else, or a run that it was trained on has changed since;
            or as `stage_of`.
    """
    task = load_task(run_dir)
    check_pinned(run_dir, task.needs)
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
    """A run of a model of latents with its codec.

    One that was trained to complete pictures has to be told `in_latents(known,
    system.codec.encode)`; `sample.py` does that, and puts the picture back.

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
    check_pinned(run_dir, task.needs)
    frozen = jax.tree.map(jnp.asarray, jax.device_get(task.frozen(data_dir)))  # tied to no device
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
    decoder: Path | None = None,
    data_dir: Path | None = None,
) -> Prior:
    """A run of either prior as a stage.

    Args:
        run_dir: its folder.
        steps: of a diffusion prior; one that draws code by code has none.
        guidance: gamma, by default the recipe's.
        decoder: the run that reads what it draws.
        data_dir: of the embeddings that codes stand for.

    Raises:
        ValueError: the run is of something else, or its CLIP has changed since or isn't the
            decoder's.
    """
    task: Any = load_task(run_dir)
    check_pinned(run_dir, task.needs)
    is_prior = isinstance(task, Experiment) and not task.draws_pictures
    if not is_prior and not isinstance(task, CodePriorTask):
        raise ValueError(
            f"{run_dir} holds no prior of embeddings; train one with configs/emoji_prior.py."
        )
    if decoder is not None and (not pinned(run_dir) or pinned(run_dir) != pinned(decoder)):
        raise ValueError(
            f"{run_dir} and {decoder} weren't trained on the same CLIP, so what one draws the "
            "other can't read."
        )
    if isinstance(task, CodePriorTask):
        gamma = task.guidance if guidance is None else guidance
        return CodeStage(
            network=task.network,
            params=load_params(task, run_dir),
            condition=task.conditioning.condition,
            codes=task.fit(data_dir).codes,
            guidance=None if gamma == 1.0 else gamma,
        )
    return stage_of(task, load_params(task, run_dir), steps=steps, guidance=guidance)


def text_reader(
    clip: Contrastive, params: Params, data_dir: Path | None = None
) -> Callable[[Sequence[str]], Prompts]:
    """What makes of texts what unCLIP's stages read; it names words that the CLIP doesn't know.

    Args:
        clip: the task of a run of a CLIP.
        params: its network's.
        data_dir: of the data set whose words it knows.
    """
    tokenizer, embed = clip.tokenizer(data_dir), token_encoder(clip, params)

    def read(texts: Sequence[str]) -> Prompts:
        _warn_unknown(tokenizer, texts)
        tokens = np.stack([tokenizer.encode(text) for text in texts])
        return Prompts(jnp.asarray(tokens), jnp.asarray(embed(tokens)))

    return read


def _warn_unknown(tokenizer: Any, texts: Sequence[str]) -> None:
    """Names the words of the texts that all are one to a tokenizer of whole words."""
    if not isinstance(tokenizer, Words) or not tokenizer.unknown:
        return
    words = dict.fromkeys(word for text in texts for word in tokenizer.split(text))
    strange = [word for word in words if word not in tokenizer.vocabulary]
    if strange:
        print(f"warning: this CLIP doesn't know {', '.join(map(repr, strange))}.", flush=True)


def load_unclip(
    decoder: Path,
    prior: Path,
    upsamplers: Sequence[Path] = (),
    *,
    steps: int | None = None,
    augment: float = 0.0,
    data_dir: Path | None = None,
) -> tuple[Unclip, Callable[[Sequence[str]], Prompts]]:
    """The chain of these runs, and what reads texts for it.

        unclip, read = load_unclip(decoder, prior)
        told = read(["cat face, in noto style"])
        pictures = jax.jit(Unclip.sample)(unclip, jax.random.key(0), told, jnp.arange(1))

    Args:
        decoder, prior, upsamplers: run folders; each of the last enlarges what comes before.
        steps: of the decoder.
        augment: the level of the noise that each upsampler's small pictures get.
        data_dir: of prepared TFDS sets.

    Raises:
        ValueError: as `load_stage` and `load_prior`.
    """
    stage = load_stage(decoder, steps=steps)
    drawn = load_prior(prior, decoder=decoder, data_dir=data_dir)
    ups, shape = [], stage.shape
    for run in upsamplers:
        small = low_resolution(load_experiment(run).conditioning)
        if small is None:
            raise ValueError(f"{run} enlarges no pictures.")
        shape = (small.factor * shape[0], small.factor * shape[1], shape[2])
        ups.append(load_stage(run, steps=25, shape=shape, augment=augment))
    clip_run = Path(pinned(decoder)[0]["run"])
    clip = load_clip_task(clip_run)
    read = text_reader(clip, load_params(clip, clip_run), data_dir)
    return Unclip(stage, clip.length, drawn, tuple(ups)), read
