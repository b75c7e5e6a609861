"""A diffusion model as a recipe puts it together, real objects all of them: a task (`task.py`)
that can be sampled from too."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.denoisers import clip, denoiser_from
from diffusion_jax.editing import Replacement
from diffusion_jax.guidance import Conditioned, classifier_free_fused
from diffusion_jax.losses import (
    absolute,
    averaged,
    constant,
    denoising_loss,
    hybrid_terms,
    restoration_loss,
)
from diffusion_jax.losses.denoising import Weighting
from diffusion_jax.losses.restoration import Distance, Partner
from diffusion_jax.models.conditioning import Known
from diffusion_jax.random import white_noise
from diffusion_jax.samplers import DDIM
from diffusion_jax.schedules import Learned
from diffusion_jax.timesteps import trailing
from diffusion_jax.training.optimizers import adam as adam  # recipes take it from here
from diffusion_jax.training.task import NoisyTask
from diffusion_jax.training.terminals import FromNoise, Terminal
from diffusion_jax.types import (
    Condition,
    Denoiser,
    GaussianProcess,
    Key,
    Loss,
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


@dataclass(frozen=True, kw_only=True)
class Experiment(NoisyTask):
    """A diffusion model: a `NoisyTask`, and how to sample from what it trains.

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

    @property
    def draws_pictures(self) -> bool:
        """Whether what it draws is [h w c], and not a vector, such as an embedding."""
        return len(self.image_shape) == 3

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

    def coder(self, data_dir: Path | None) -> Any:
        """What makes pictures of what is drawn, and the other way: a pytree; here nothing."""
        return ()

    def told(self, coder: Any, known: Known) -> Known:
        """What is known of pictures, as the network is told it."""
        return known

    def as_pictures(self, coder: Any, x: jax.Array, known: Known) -> jax.Array:
        """Pictures in [-1, 1] of what was drawn, or what the model draws in their place."""
        return jnp.clip(x, -1.0, 1.0) if self.draws_pictures else x

    def beginning(self, picture: np.ndarray, data_dir: Path | None) -> np.ndarray:
        """What image-to-image corrupts of a picture [h w c] in [-1, 1]."""
        return picture

    def resized(self, height: int, width: int) -> "Experiment":
        """The same model of pictures of another size."""
        shape = (height, width, *self.image_shape[2:])
        return dataclasses.replace(self, image_shape=shape)

    def use(self, run_dir: Path) -> str:
        if not self.draws_pictures:
            return f"sample.py DECODER_RUN --prior {run_dir} --prompt TEXT"
        return f"sample.py {run_dir}"

    def draw(self, params: Params, mesh: Mesh, data_dir: Path | None) -> np.ndarray | None:
        from diffusion_jax.training.sampling import sample_grid  # which reads experiments

        return sample_grid(self, params, mesh, data_dir=data_dir) if self.draws_pictures else None

    def check(self) -> None:
        super().check()
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
