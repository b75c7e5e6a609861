"""An Experiment: the real objects that a recipe puts together, and what is derived from them."""

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
from diffusion_jax.guidance import classifier_free_fused
from diffusion_jax.losses import absolute, constant, denoising_loss, restoration_loss
from diffusion_jax.losses.denoising import Weighting
from diffusion_jax.losses.restoration import Distance, Partner
from diffusion_jax.models.conditioning import ClassLabels
from diffusion_jax.random import white_noise
from diffusion_jax.samplers import DDIM
from diffusion_jax.schedules import Learned
from diffusion_jax.timesteps import Stratified, Times, trailing
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
Told = Callable[[jax.Array, jax.Array, Condition], jax.Array]


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
        condition=experiment.labels,
    )


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
        condition=experiment.labels,
    )


@dataclass(frozen=True)
class Experiment:
    """What to train, on what, how, and how to sample from it.

    Attributes:
        source: (split, data_dir) -> Source; splits "train" and "test".
        image_shape: (h, w, c) of the pictures.
        model: the network.
        process: the forward process; where its schedule is trained, any `Learned` one.
        parameterization: what the network predicts.
        labels: how labels become conditions, and how often training drops them.
        learning_rate: step -> rate. `optimizer` is made from it, and continuing a run with
            more steps is refused where it would have been another one before.
        optimizer: learning rate -> transformation, with gradient clipping.
        batch_size: examples a step, over all devices.
        steps: to train.
        seed: of the parameters, the order of the data and every draw.
        make_loss: the loss from these parts.
        init_extra: makes what that loss carries from step to step, such as
            `lambda: init_history(1000)`; nothing by default.
        times, weighting: of the denoising loss.
        init_schedule: makes the parameters of a `Learned` schedule that is trained with the
            network, such as `init_learned`; params are then {"network": ..., "schedule": ...}.
        augment: of the training pictures.
        ema_decay: of the averaged parameters, which sampling uses.
        accumulate: micro-batches a step.
        terminal: where sampling's x_1 comes from.
        finish: what sampling makes of predictions, (denoiser, process) -> denoiser.
        sampler: sampling's default.
        sample_steps: steps of sampling, where another number won't do.
        grid: n -> the n + 1 times that sampling walks.
        guidance: sampling's default gamma; 1 is none.
        class_names: shown beside labels; empty is the numbers.
    """

    source: Callable[[str, Path | None], Source]
    image_shape: tuple[int, int, int]
    model: Model
    process: Process
    parameterization: Parameterization
    labels: ClassLabels
    learning_rate: optax.Schedule
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
    batch_size: int
    steps: int
    seed: int = 0
    make_loss: Callable[["Experiment"], Loss] = denoising
    init_extra: Callable[[], Extra] = tuple
    times: Times = Stratified()
    weighting: Weighting = constant
    init_schedule: Callable[[Key], Params] | None = None
    augment: Augment | None = None
    ema_decay: float = 0.999
    accumulate: int = 1
    terminal: Terminal = FromNoise()
    finish: Callable[[Denoiser, Process], Denoiser] = clip
    sampler: Sampler = DDIM()
    sample_steps: int | None = None
    grid: Grid = trailing
    guidance: float = 1.0
    class_names: tuple[str, ...] = field(default=())

    def init_params(self, key: Key) -> Params:
        """Random parameters."""
        x = jnp.zeros((1, *self.image_shape))
        network = self.model.init(key, x, jnp.zeros((1,)), self.labels.null(1))
        if self.init_schedule is None:
            return network
        return {"network": network, "schedule": self.init_schedule(jax.random.fold_in(key, 1))}

    def parts(self, params: Params) -> tuple[Told, Process]:
        """The network (x, t, condition) -> y and the process that these parameters make."""
        if self.init_schedule is None:
            return functools.partial(self.model.apply, params), self.process
        learned = Learned(params["schedule"])

        def network(x: jax.Array, t: jax.Array, condition: Condition) -> jax.Array:
            return self.model.apply(params["network"], x, learned.progress(t), condition)

        process: Any = self.process
        return network, dataclasses.replace(process, schedule=learned)

    def loss(self) -> Loss:
        """What training minimises."""
        return self.make_loss(self)

    def denoiser(
        self,
        params: Params,
        label: jax.Array,
        guidance: Scalar | None,
        process: Process | None = None,
    ) -> Denoiser:
        """The finished (by default: clipped) denoiser of these parameters and labels.

        Args:
            params: raw or averaged.
            label: [b] int, -1 for no label.
            guidance: gamma, maybe traced; None calls the network once, with the label.
            process: of the examples at hand; the experiment's by default.
        """
        told, own = self.parts(params)
        process = own if process is None else process
        condition = self.labels.condition(label)

        if guidance is None:
            network: Network = functools.partial(_with_condition, told, condition)
        else:
            null = self.labels.null(label.shape[0])
            network = classifier_free_fused(told, condition, null, guidance)
        return self.finish(denoiser_from(network, process, self.parameterization), process)


def _with_condition(told: Told, condition: Condition, x: jax.Array, t: jax.Array) -> jax.Array:
    return told(x, t, condition)


def unfinished(denoiser: Denoiser, process: Process) -> Denoiser:
    """The denoiser as it is, for `Experiment.finish`."""
    return denoiser


def adam(
    learning_rate: optax.ScalarOrSchedule, clip_norm: float = 1.0
) -> optax.GradientTransformation:
    """Adam on gradients whose norm over all parameters is clipped."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))
