"""A picture's class from labels, against which other representations are measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.data import Source
from diffusion_jax.losses.classification import cross_entropy
from diffusion_jax.models.classifier import Classified
from diffusion_jax.training.task import Task
from diffusion_jax.types import Batch, Extra, Key, Loss, Params


@dataclass(frozen=True, kw_only=True)
class Supervised(Task):
    """A tower trained to name the class of clean pictures.

    Attributes:
        network: a tower of the pictures and a linear layer.
    """

    network: Classified

    def init_params(self, key: Key) -> Params:
        return self.network.init(key, self.blank(1)["image"])["params"]

    def loss(self) -> Loss:
        def loss(params: Params, extra: Extra, key: Key, batch: Batch):
            logits = self.logits(params, batch["image"])
            value = jnp.mean(cross_entropy(logits, batch["label"]))
            accuracy = jnp.mean(logits.argmax(1) == batch["label"])
            return value, ({"loss": value, "accuracy": accuracy}, extra)

        return loss

    def logits(self, params: Params, pixels: Array) -> Float[Array, "b classes"]:
        """What the network answers."""
        answer: Any = self.network.apply({"params": params}, pixels)
        return answer

    def use(self, run_dir: Path) -> str:
        return f"benchmarks/clip_robustness.py RUN --supervised {run_dir}"

    def check_source(self, source: Source) -> None:
        super().check_source(source)
        if source.classes != self.network.classes:
            raise ValueError(
                f"{source.name} has {source.classes} classes, and the network names "
                f"{self.network.classes}."
            )
