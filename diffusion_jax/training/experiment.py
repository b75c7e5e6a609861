"""What a recipe puts together, real objects all of them, and what is derived from those.

A `Task` is anything that the trainer trains; an `Experiment` is a diffusion model, which can
be sampled from too.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.data import Augment, Source
from diffusion_jax.denoisers import clip, denoiser_from
from diffusion_jax.editing import Replacement
from diffusion_jax.guidance import Conditioned, classifier_free_fused
from diffusion_jax.losses import (
    absolute,
    averaged,
    classification_loss,
    constant,
    denoising_loss,
    hybrid_terms,
    restoration_loss,
)
from diffusion_jax.losses.denoising import Weighting
from diffusion_jax.losses.restoration import Distance, Partner
from diffusion_jax.models.conditioning import Conditioning, Known
from diffusion_jax.random import white_noise
from diffusion_jax.samplers import DDIM
from diffusion_jax.schedules import Learned
from diffusion_jax.timesteps import Stratified, Times, trailing
from diffusion_jax.training.optimizers import adam as adam  # recipes take it from here
from diffusion_jax.training.terminals import FromNoise, Terminal
from diffusion_jax.types import (
    Condition,
    Denoiser,
    Extra,
    GaussianProcess,
    Key,
    Loss,
    Model,
    Network,
    Parameterization,
    Params,
    Process,
    Sampler,
    Scalar,
)

Grid = Callable[[int], jax.Array]
Steer = Callable[[Denoiser, Process, Known], Denoiser]


def unsteered(denoiser: Denoiser, process: Process, known: Known) -> Denoiser:
    """The denoiser as it is, for `Experiment.steer`."""
    return denoiser


def denoising(experiment: "Experiment") -> Loss:
    """The denoising loss on an experiment's parts, its times and its weighting.

    Raises:
        ValueError: the process has no alpha and sigma.
    """
    if not isinstance(experiment.process, GaussianProcess):
        raise ValueError(
            f"{experiment.process} has no alpha and sigma for the denoising loss; name another "
            "one with make_loss=, such as restoration."
        )
    return denoising_loss(
        experiment.model.apply,
        experiment.process,
        experiment.parameterization,
        times=experiment.times,
        weighting=experiment.weighting,
        condition=experiment.conditioning,
    )


def hybrid(experiment: "Experiment", *, steps: int, weight: float = 0.001) -> Loss:
    """L_simple, and the bound that trains a `LearnedVariance`, on a table of this many steps."""
    process: Any = experiment.process
    terms = hybrid_terms(
        experiment.model.apply,
        process,
        experiment.parameterization,
        steps,
        weight=weight,
        weighting=experiment.weighting,
        condition=experiment.conditioning,
    )
    return averaged(terms, experiment.times)


def restoration(
    experiment: "Experiment", *, distance: Distance = absolute, noise: Partner = white_noise
) -> Loss:
    """The restoration loss on an experiment's parts and its times, for a network of x0."""
    return restoration_loss(
        experiment.model.apply,
        experiment.process,
        distance=distance,
        noise=noise,
        times=experiment.times,
        condition=experiment.conditioning,
    )


def classification(task: "Task") -> Loss:
    """The classification loss on a task's parts and its times, for a network of logits."""
    return classification_loss(
        task.model.apply, task.process, times=task.times, condition=task.conditioning
    )


def check_seed(seed: int, what: str = "seed") -> None:
    """Raises ValueError for a seed that JAX would take for another one: it keeps 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{what} is {seed}; it must be from 0 to {2**32 - 1}.")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train, on what, and how.

    Attributes:
        source: (split, data_dir) -> Source; splits "train" and "test".
        image_shape: (h, w, c) of the pictures.
        model: the network.
        process: the forward process; where its schedule is trained, any `Learned` one.
        conditioning: what the network is told of a picture, and how often training drops it.
        learning_rate: step -> rate. `optimizer` is made from it, and continuing a run with
            more steps is refused where it would have been another one before.
        optimizer: learning rate -> transformation, with gradient clipping.
        batch_size: examples a step, over all devices.
        steps: to train.
        seed: of the parameters, the order of the data and every draw.
        make_loss: the loss from these parts.
        init_extra: makes what that loss carries from step to step, such as
            `lambda: init_history(1000)`; nothing by default.
        times: where the loss draws t.
        augment: of the training pictures.
        ema_decay: of the averaged parameters, which sampling uses.
        accumulate: micro-batches a step.
        class_names: shown beside labels; empty is the numbers.
    """

    source: Callable[[str, Path | None], Source]
    image_shape: tuple[int, int, int]
    model: Model
    process: Process
    conditioning: Conditioning
    learning_rate: optax.Schedule
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
    batch_size: int
    steps: int
    seed: int = 0
    make_loss: Callable[[Any], Loss]
    init_extra: Callable[[], Extra] = tuple
    times: Times = Stratified()
    augment: Augment | None = None
    ema_decay: float = 0.999
    accumulate: int = 1
    class_names: tuple[str, ...] = field(default=())

    def init_params(self, key: Key) -> Params:
        """Random parameters."""
        shape = (1, *self.image_shape)
        known = self.conditioning.condition(self.conditioning.blank(shape))
        return self.model.init(key, jnp.zeros(shape), jnp.zeros((1,)), known)

    def loss(self) -> Loss:
        """What training minimises."""
        return self.make_loss(self)

    def check(self) -> None:
        """Raises ValueError, before any work, for parts that don't go together."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Task):
    """A diffusion model: a `Task`, and how to sample from what it trains.

    Attributes:
        parameterization: what the network predicts.
        weighting: of the denoising loss.
        init_schedule: makes the parameters of a `Learned` schedule that is trained with the
            network, such as `init_learned`; params are then {"network": ..., "schedule": ...}.
        terminal: where sampling's x_1 comes from.
        guide: (network, condition, null, gamma) -> network, classifier-free guidance.
        inpaint: (sampler, picture, mask) -> the sampler that keeps the picture where the mask is
            1, for pictures that come with "image" and "mask".
        steer: guidance before `finish`, (denoiser, process, known) -> denoiser.
        finish: what sampling makes of predictions, (denoiser, process) -> denoiser.
        sampler: sampling's default.
        sample_steps: steps of sampling, where another number won't do.
        grid: n -> the n + 1 times that sampling walks.
        guidance: sampling's default gamma; 1 is none.
    """

    make_loss: Callable[[Any], Loss] = denoising
    parameterization: Parameterization
    weighting: Weighting = constant
    init_schedule: Callable[[Key], Params] | None = None
    terminal: Terminal = FromNoise()
    guide: Callable[[Conditioned, Condition, Condition, Scalar], Network] = classifier_free_fused
    inpaint: Callable[[Sampler, jax.Array, jax.Array], Sampler] = Replacement
    steer: Steer = unsteered
    finish: Callable[[Denoiser, Process], Denoiser] = clip
    sampler: Sampler = DDIM()
    sample_steps: int | None = None
    grid: Grid = trailing
    guidance: float = 1.0

    def init_params(self, key: Key) -> Params:
        """Random parameters."""
        network = super().init_params(key)
        if self.init_schedule is None:
            return network
        return {"network": network, "schedule": self.init_schedule(jax.random.fold_in(key, 1))}

    def parts(self, params: Params) -> tuple[Conditioned, Process]:
        """The network (x, t, condition) -> y and the process that these parameters make."""
        if self.init_schedule is None:
            return functools.partial(self.model.apply, params), self.process
        learned = Learned(params["schedule"])

        def network(x: jax.Array, t: jax.Array, condition: Condition) -> jax.Array:
            return self.model.apply(params["network"], x, learned.progress(t), condition)

        process: Any = self.process
        return network, dataclasses.replace(process, schedule=learned)

    def check(self) -> None:
        self.terminal.check(self.process)

    def denoiser(
        self,
        params: Params,
        known: Known,
        guidance: Scalar | None,
        process: Process | None = None,
    ) -> Denoiser:
        """The steered and finished (by default: clipped) denoiser of these parameters.

        Args:
            params: raw or averaged.
            known: what `conditioning` reads: "label" [b], -1 for none, and the like.
            guidance: gamma, maybe traced; None calls the network once, with the condition.
            process: of the examples at hand; the experiment's by default.
        """
        told, own = self.parts(params)
        process = own if process is None else process
        condition = self.conditioning.condition(known)

        if guidance is None:
            network: Network = functools.partial(_with_condition, told, condition)
        else:
            null = self.conditioning.null(known)
            network = self.guide(told, condition, null, guidance)
        denoiser = denoiser_from(network, process, self.parameterization)
        return self.finish(self.steer(denoiser, process, known), process)


def _with_condition(
    told: Conditioned, condition: Condition, x: jax.Array, t: jax.Array
) -> jax.Array:
    return told(x, t, condition)


def unfinished(denoiser: Denoiser, process: Process) -> Denoiser:
    """The denoiser as it is, for `Experiment.finish`."""
    return denoiser
