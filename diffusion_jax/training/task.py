"""What the trainer trains: a source, parameters, a loss, an optimizer, and how long.

`NoisyTask` is a network that reads noisy pictures, such as a classifier or, in `experiment.py`, a
diffusion model; `contrastive.py` has pictures and their captions.
"""

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from diffusion_jax.data import Augment, Source
from diffusion_jax.losses import classification_loss
from diffusion_jax.models.conditioning import Conditioning
from diffusion_jax.timesteps import Stratified, Times
from diffusion_jax.training.optimizers import adam as adam  # recipes take it from here
from diffusion_jax.types import Condition, Extra, Key, Loss, Model, Params, Process, Tokenizer


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """What to train, on what, and how.

    Attributes:
        source: (split, data_dir) -> Source; splits "train" and "test".
        image_shape: (h, w, c) of the pictures, or the shape of what is in their place.
        learning_rate: step -> rate. `optimizer` is made from it, and continuing a run with
            more steps is refused where it would have been another one before.
        optimizer: learning rate -> transformation, with gradient clipping.
        batch_size: examples a step, over all devices.
        steps: to train.
        seed: of the parameters, the order of the data and every draw.
        init_extra: makes what the loss carries from step to step, such as
            `lambda: init_history(1000)`; nothing by default.
        augment: of the training pictures.
        ema_decay: of the averaged parameters, which sampling uses.
        accumulate: micro-batches a step.
        class_names: shown beside labels; empty is the numbers.
        needs: folders of other runs that this one is trained on, such as a prior's CLIP.
    """

    source: Callable[[str, Path | None], Source]
    image_shape: tuple[int, ...]
    learning_rate: optax.Schedule
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]
    batch_size: int
    steps: int
    seed: int = 0
    init_extra: Callable[[], Extra] = tuple
    augment: Augment | None = None
    ema_decay: float = 0.999
    accumulate: int = 1
    class_names: tuple[str, ...] = field(default=())
    needs: tuple[Path, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """What batches hold beside image and label."""
        return ()

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Of the source's images."""
        return self.image_shape

    @abc.abstractmethod
    def init_params(self, key: Key) -> Params:
        """Random parameters."""

    def pretrained(self) -> Params | None:
        """Parameters to begin with, on the host; None begins with `init_params`."""
        return None

    def first_extra(self, data_dir: Path | None = None) -> Extra:
        """What the loss carries, before the first step; `data_dir` is where data may be read."""
        return self.init_extra()

    @abc.abstractmethod
    def loss(self) -> Loss:
        """What training minimises."""

    @abc.abstractmethod
    def use(self, run_dir: Path) -> str:
        """The command that does something with a trained run."""

    def draw(self, params: Params, mesh: Mesh, data_dir: Path | None) -> np.ndarray | None:
        """What averaged parameters do as a picture, uint8 [h w c]; None has nothing to show."""
        return None

    def blank(self, batch_size: int) -> Mapping[str, Any]:
        """A batch of zeros, of the shapes and dtypes that training has."""
        image = jnp.zeros((batch_size, *self.data_shape))
        return {"image": image, "label": jnp.zeros((batch_size,), jnp.int32)}

    def check(self) -> None:
        """Raises ValueError, before any work, for numbers out of range or parts that don't fit."""
        for name in ("steps", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        check_seed(self.seed)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay is {self.ema_decay}; it must be at least 0 and less than 1."
            )
        for step in (0, self.steps // 2, self.steps):
            rate = float(self.learning_rate(step))
            if not 0 <= rate < math.inf:
                raise ValueError(
                    f"the learning rate of step {step} is {rate:g}; it must be from 0 up."
                )

    def check_source(self, source: Source) -> None:
        """Raises ValueError unless the data are what the network is made for."""
        shape = tuple(source.image_shape)
        if self.augment is not None:  # which may take a part of each picture
            one = self.augment(np.zeros((1, *shape), np.uint8), np.zeros(1, np.uint64))
            shape = one.shape[1:]
        if shape != tuple(self.data_shape):
            raise ValueError(
                f"{source.name} has pictures of {shape}, and the recipe's network is "
                f"for {self.data_shape}."
            )


@dataclass(frozen=True, kw_only=True)
class ToldTask(Task):
    """A network that is told something of each picture.

    Attributes:
        conditioning: what that is, and how often training drops it.
        tokenizer: data_dir -> what makes tokens of prompts, for a conditioning that doesn't know.
    """

    conditioning: Conditioning
    tokenizer: Callable[[Path | None], Tokenizer] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f for f in self.conditioning.features if f not in ("image", "label"))

    def blank_condition(self) -> Condition:
        """Of one picture of which zeros are known."""
        return self.conditioning.condition(self.conditioning.blank((1, *self.image_shape)))

    def blank(self, batch_size: int) -> Mapping[str, Any]:
        told = self.conditioning.blank((batch_size, *self.image_shape))
        return {**super().blank(batch_size), **{name: told[name] for name in self.features}}

    def check(self) -> None:
        super().check()
        drop = self.conditioning.drop
        if not 0 <= drop <= 1:
            raise ValueError(f"conditions are dropped with probability {drop}; it is from 0 to 1.")

    def check_source(self, source: Source) -> None:
        super().check_source(source)
        self.conditioning.check_source(source.name, source.classes)


@dataclass(frozen=True, kw_only=True)
class NoisyTask(ToldTask):
    """A network of pictures that a process has corrupted, such as a noise-aware classifier.

    Attributes:
        model: the network.
        process: the forward process; where its schedule is trained, any `Learned` one.
        make_loss: the loss from these parts.
        times: where the loss draws t.
    """

    model: Model
    process: Process
    make_loss: Callable[[Any], Loss]
    times: Times = Stratified()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is corrupted, and the network reads."""
        return self.image_shape

    def init_params(self, key: Key) -> Params:
        x, t = jnp.zeros((1, *self.shape)), jnp.zeros((1,))
        return self.model.init(key, x, t, self.blank_condition())

    def loss(self) -> Loss:
        return self.make_loss(self)

    def use(self, run_dir: Path) -> str:
        return f"sample.py OTHER_RUN --classifier {run_dir}"


def classification(task: NoisyTask) -> Loss:
    """The classification loss on a task's parts and its times, for a network of logits."""
    return classification_loss(
        task.model.apply, task.process, times=task.times, condition=task.conditioning
    )


def check_seed(seed: int, what: str = "seed") -> None:
    """Raises ValueError for a seed that JAX would take for another one: it keeps 32 bits."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{what} is {seed}; it must be from 0 to {2**32 - 1}.")
