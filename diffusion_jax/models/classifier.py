"""Classifiers: ADM's of noisy pictures, a U-Net's trunk and an attention pool; and a tower's.

Trained on noisy pictures at every t (`losses.classification_loss`), ADM's gives p(class | x_t),
whose gradient in x_t is what classifier guidance adds to the score.

Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), section 4.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.models.attention import AttentionPool
from diffusion_jax.models.layers import (
    GroupNorm,
    ResidualBlock,
    Sinusoidal,
    StridedDown,
    average_pool,
)
from diffusion_jax.models.precision import island
from diffusion_jax.models.trunk import descend
from diffusion_jax.types import Condition


class NoiseAwareClassifier(nn.Module):
    """(x [b h w c], t [b], condition) -> logits [b classes], float32.

    Attributes:
        classes: number of logits.
        channels, ..., dtype: of the trunk, as in `UNet`; `head_channels` also of the pool.

    A condition is what the classifier may know beside x, such as the low resolution that is to
    be raised; it is read as in `UNet`.

    Raises:
        ValueError: as `UNet`; or the parameters were made for pictures of another size.
    """

    classes: int
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    head_channels: int | None = None
    modulate: bool = False
    dropout: float = 0.0
    down: Callable[..., nn.Module] = StridedDown
    time_features: Callable[[Array], Array] = Sinusoidal(128)
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"],
        condition: Condition = Condition(),
    ) -> Float[Array, "b classes"]:
        _, h, _ = descend(self, x, t, condition)
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm_out")(h))
        logits = AttentionPool(self.classes, self.head_channels, name="pool")(h)
        return island(logits)


def digits_classifier(
    classes: int = 10, channels: int = 16, dtype: Any = jnp.float32
) -> NoiseAwareClassifier:
    """For 8x8 digits, `digits_unet` without its way up: 92 thousand parameters; t up to 1,000."""
    return NoiseAwareClassifier(
        classes=classes,
        channels=channels,
        multipliers=(1, 2),
        blocks=1,
        attention=(4,),
        head_channels=16,
        modulate=True,
        time_features=Sinusoidal(32),
        dtype=dtype,
    )


def adm_classifier_64(classes: int = 1000, dtype: Any = jnp.float32) -> NoiseAwareClassifier:
    """ADM's classifier of 64x64 pictures, 65 M parameters with 1,000 classes; t in table steps.

    Source: Dhariwal & Nichol 2021, the classifier of ImageNet 64.
    """
    return NoiseAwareClassifier(
        classes=classes,
        channels=128,
        multipliers=(1, 2, 3, 4),
        blocks=4,
        attention=(32, 16, 8),
        head_channels=64,
        modulate=True,
        down=partial(ResidualBlock, modulate=True, resize=average_pool),
        time_features=Sinusoidal(128, shift=0),
        dtype=dtype,
    )


class Classified(nn.Module):
    """pixels [b h w c] -> logits [b classes]: a linear layer on a tower's pooled features.

    Attributes:
        tower: pixels -> `models.clip.Encoding`.
        classes: of the labels.
    """

    tower: nn.Module
    classes: int

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b classes"]:
        return nn.Dense(self.classes, name="head")(self.tower(pixels).pooled)
