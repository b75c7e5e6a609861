"""Conditions: what a batch knows, in the form that networks read."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion_jax.conditions import drop_condition
from diffusion_jax.types import Batch, Condition, Index, Key


@dataclass(frozen=True)
class ClassLabels:
    """Labels as one-hot `Condition.vector`; the null condition is the zero vector.

    The U-Net's projection of a one-hot vector is a learned embedding for each class, and its
    bias a learned one for null.

    Attributes:
        classes: number of classes; 0 is unconditional, and gives empty conditions.
        drop: probability that training sees null instead (classifier-free guidance).
    """

    classes: int
    drop: float = 0.1

    def __call__(self, key: Key, index: Index, batch: Batch) -> Condition:
        """The batch's condition in training, dropped for each example by itself."""
        if not self.classes:
            return Condition()
        condition = self.condition(batch["label"])
        return drop_condition(key, index, condition, self.null(index.shape[0]), self.drop)

    def condition(self, label: Int[Array, " b"]) -> Condition:
        """label [b] -> vector [b classes]."""
        if not self.classes:
            return Condition()
        return Condition(vector=jax.nn.one_hot(label, self.classes))

    def null(self, count: int) -> Condition:
        """The null condition for `count` examples."""
        if not self.classes:
            return Condition()
        return Condition(vector=jnp.zeros((count, self.classes)))
