"""Feature maps of a network that wasn't made to answer them, for perceptual distances."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from diffusion_jax.models.clip_resnet import ModifiedResNet
from diffusion_jax.types import Params

FeatureMaps = Callable[[Params, Float[Array, "b h w c"]], tuple[Array, ...]]


def feature_maps(network: nn.Module, names: tuple[str, ...]) -> FeatureMaps:
    """(params, pictures) -> what the network's modules of these names answer, in this order.

    Raises:
        KeyError: when called, if a module of such a name isn't called.
    """

    def maps(params: Params, pictures: Float[Array, "b h w c"]) -> tuple[Array, ...]:
        _, state = network.apply(
            {"params": params},
            pictures,
            capture_intermediates=lambda module, _: module.name in names,
            mutable="intermediates",
        )
        found: Any = state["intermediates"]
        return tuple(found[name]["__call__"][0] for name in names)

    return maps


def stage_maps(tower: ModifiedResNet) -> FeatureMaps:
    """Those of the last block of each stage of CLIP's residual tower, and of its stem."""
    last = (f"stage{i}_block{depth - 1}" for i, depth in enumerate(tower.layers))
    return feature_maps(tower, ("stem_norm3", *last))
