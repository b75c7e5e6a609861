"""The sizes of a CLIP that arrays in OpenAI's layout tell by their shapes."""

import math
from typing import Any

from diffusion_jax.interop.layouts import Shapes
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_resnet import FrozenBatchNorm, ModifiedResNet
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.clip_vision import VisionTransformer


def from_openai(shapes: Shapes, **computation: Any) -> CLIP:
    """The CLIP that has arrays of these shapes: heads of 64 channels, quick GELUs.

    Raises:
        ValueError: the shapes of something else.
    """
    try:
        vocabulary, width = shapes["token_embedding.weight"]
        text = TextTransformer(
            shapes["text_projection"][1],
            vocabulary,
            shapes["positional_embedding"][0],
            width,
            _count(shapes, "transformer.resblocks."),
            max(width // 64, 1),
            end=vocabulary - 1,
            hidden=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
            **computation,
        )
        if "visual.proj" not in shapes:
            return CLIP(_resnet(shapes, computation["dtype"]), text, "logit_bias" in shapes)
        width, _, patch, _ = shapes["visual.conv1.weight"]
        places = shapes["visual.positional_embedding"][0]
        image = VisionTransformer(
            shapes["visual.proj"][1],
            width,
            _count(shapes, "visual.transformer.resblocks."),
            max(width // 64, 1),
            patch,
            patch * math.isqrt(places - 1),
            hidden=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
            **computation,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"these arrays aren't an OpenAI CLIP's ({type(error).__name__}: {error})."
        ) from error
    return CLIP(image, text, "logit_bias" in shapes)


def _resnet(shapes: Shapes, dtype: Any) -> ModifiedResNet:
    stages = _count(shapes, "visual.layer", first=1)
    places, channels = shapes["visual.attnpool.positional_embedding"]
    return ModifiedResNet(
        shapes["visual.attnpool.c_proj.weight"][0],
        tuple(_count(shapes, f"visual.layer{i}.") for i in range(1, stages + 1)),
        shapes["visual.conv3.weight"][0],
        max(channels // 64, 1),
        image_size=2 ** (stages + 1) * math.isqrt(places - 1),
        norm=FrozenBatchNorm,
        dtype=dtype,
    )


def _count(shapes: Shapes, start: str, first: int = 0) -> int:
    """How many numbers from `first` on follow `start` in the names."""
    rest = (name.removeprefix(start) for name in shapes if name.startswith(start))
    numbers = {name.split(".")[0] for name in rest}
    count = 0
    while str(first + count) in numbers:
        count += 1
    return count
