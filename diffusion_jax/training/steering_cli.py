"""What steers samples beside the model, by sample.py's flags: a classifier, or CLIP and a text."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from diffusion_jax.classifier_guidance import class_log_probability, classifier_guided
from diffusion_jax.clip_guidance import clip_guided, noised_clip_guided
from diffusion_jax.models.conditioning import Known
from diffusion_jax.training.contrastive import Contrastive, text_encoder
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.known_cli import as_flag, check_finite
from diffusion_jax.training.runs import load_params, load_task
from diffusion_jax.training.task import NoisyTask, Task
from diffusion_jax.types import Condition, Denoiser, Params, Scalar


@dataclasses.dataclass(frozen=True)
class Steering:
    """Which run steers, to what, and how much."""

    classifier: Path | None = None
    """run folder of a noise-aware classifier that steers to the label"""
    classifier_scale: float | None = None
    """of the classifier's gradient (1)"""
    clip: Path | None = None
    """run folder of a CLIP that steers to --clip-text, through any model of its pictures"""
    clip_text: str | None = None
    """what the pictures shall show, to CLIP"""
    clip_scale: float | None = None
    """of CLIP's gradient (100, its temperature)"""
    steering_recipe: Path | None = None
    """the recipe of --classifier or --clip, if it isn't in configs/; its code is executed"""

    def check(self) -> None:
        """Raises ValueError for flags that don't go together."""
        owners = {
            "classifier_scale": (self.classifier, "--classifier"),
            "clip_scale": (self.clip, "--clip"),
            "clip_text": (self.clip, "--clip"),
        }
        for name, (owner, flag) in owners.items():
            if getattr(self, name) is not None and owner is None:
                raise ValueError(f"{as_flag(name)} was given, but it belongs to {flag}.")
        if self.steering_recipe and not (self.classifier or self.clip):
            raise ValueError("--steering-recipe was given, but neither --classifier nor --clip.")
        if self.clip and not self.clip_text:
            raise ValueError("--clip needs a text: --clip-text.")
        if self.clip and self.classifier:
            raise ValueError("--clip and --classifier both steer; name one of them.")

    def steered(
        self, experiment: Experiment, known: Known, mesh: Mesh, data_dir: Path | None
    ) -> Experiment:
        """The experiment, steered by what was named, if anything.

        Raises:
            ValueError: a run of another kind, of other pictures or of other noise.
        """
        if self.classifier:
            task = load_task(self.classifier, self.steering_recipe)
            scale = 1.0 if self.classifier_scale is None else self.classifier_scale
            check_finite("--classifier-scale", scale)
            if isinstance(task, Experiment) or not isinstance(task, NoisyTask):
                raise ValueError(
                    f"--classifier {self.classifier} is no classifier of noisy pictures, such as "
                    "configs/fashion_mnist_classifier.py trains."
                )
            check_same_pictures(experiment, task)
            check_steers(task, known)
            params = load_params(task, self.classifier, "ema", None, mesh)
            return classified(experiment, task, params, scale)
        if self.clip:
            clip = load_task(self.clip, self.steering_recipe)
            scale = 100.0 if self.clip_scale is None else self.clip_scale
            check_finite("--clip-scale", scale)
            if not isinstance(clip, Contrastive):
                raise ValueError(
                    f"--clip {self.clip} is no CLIP, such as configs/shapes_clip.py trains."
                )
            check_clip(experiment, clip)
            params = load_params(clip, self.clip, "ema", None, mesh)
            text = text_encoder(clip, params, data_dir)([self.clip_text or ""])[0]
            return told_by_clip(experiment, clip, params, text, scale)
        return experiment


def check_size(experiment: Experiment, task: Task, flag: str) -> None:
    """Raises ValueError unless the task is of pictures like the model's."""
    if task.image_shape != experiment.shape:
        raise ValueError(
            f"{flag} is for pictures of {task.image_shape}, and this model draws "
            f"{experiment.shape}."
        )


def check_clip(experiment: Experiment, clip: Contrastive) -> None:
    """Raises ValueError unless the CLIP reads the model's pictures, or its noise."""
    check_size(experiment, clip, "--clip")
    if clip.process is not None and clip.process != experiment.process:
        raise ValueError(
            f"--clip was trained on {clip.process}, and this model is of {experiment.process}; "
            "its noise must be the same, or none."
        )


def told_by_clip(
    experiment: Experiment, clip: Contrastive, params: Params, text: jax.Array, scale: Scalar
) -> Experiment:
    """The experiment that CLIP steers to a text, by x_t if it was trained on noise, else by x0."""

    def encode(pixels: jax.Array) -> jax.Array:
        answer: Any = clip.clip.apply({"params": params}, pixels, method="encode_image")
        return answer.embedding

    def steer(denoiser: Denoiser, process: Any, known: Known) -> Denoiser:
        if clip.process is None:
            return clip_guided(denoiser, encode, text, process, scale)
        return noised_clip_guided(denoiser, lambda x, t: encode(x), text, process, scale)

    return dataclasses.replace(experiment, steer=steer)


def check_same_pictures(experiment: Experiment, classifier: NoisyTask) -> None:
    """Raises ValueError unless the classifier knows the model's pictures and noise."""
    check_size(experiment, classifier, "--classifier")
    if classifier.process != experiment.process:
        raise ValueError(
            f"--classifier was trained on {classifier.process}, and this model is of "
            f"{experiment.process}; its noise must be the same."
        )


def classified(
    experiment: Experiment, classifier: NoisyTask, params: Any, scale: Scalar
) -> Experiment:
    """The experiment that a noise-aware classifier steers to each example's label."""
    check_same_pictures(experiment, classifier)

    def logits(x: jax.Array, t: jax.Array) -> jax.Array:
        return classifier.model.apply(params, x, t, Condition())

    def steer(denoiser: Denoiser, process: Any, known: Known) -> Denoiser:
        return classifier_guided(
            denoiser, class_log_probability(logits, known["label"]), process, scale
        )

    return dataclasses.replace(experiment, steer=steer)


def check_steers(classifier: NoisyTask, known: Known) -> None:
    """Raises ValueError unless every picture has a label that the classifier knows."""
    shape = (1, *classifier.image_shape)
    answer = jax.eval_shape(
        lambda key: classifier.model.apply(
            classifier.init_params(key), jnp.zeros(shape), jnp.zeros(1), Condition()
        ),
        jax.random.key(0),
    )
    classes = answer.shape[1]
    for label in known.get("label", [-1]):
        if not 0 <= label < classes:
            raise ValueError(
                f"--classifier steers to labels 0..{classes - 1}, and "
                f"{'none' if label == -1 else label} was asked for; name one with --label "
                "(with --guidance 0 the classifier steers alone)."
            )
