"""The sizes of Stable Diffusion's networks: from diffusers' config.json and back."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.interop.layouts import Shapes, flat
from diffusion_jax.interop.sd_fields import Fields
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.latent_unet import LatentUNet
from diffusion_jax.types import Condition

Config = Mapping[str, Any]
UNET, CODEC = "UNet2DConditionModel", "AutoencoderKL"
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
SDXL_SIZES, REFINER_SIZES = 6, 5
SCALE = 0.18215  # of the latents, where the autoencoder's config says nothing
# Averages that diffusers has saved say how they were made.
AVERAGED = (
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power"),
    *("update_after_step", "use_ema_warmup"),
)
# What is said but changes nothing here: the softmax and its logits are float32 always.
UNET_IGNORED = ("sample_size", "upcast_attention", "addition_embed_type_num_heads", *AVERAGED)
# field -> what it may be; the first is what diffusers takes where a config says nothing.
UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "only_cross_attention": (False,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None, "projection"),
}
CODEC_IGNORED = ("sample_size", "force_upcast", *AVERAGED)
CODEC_FIXED: Mapping[str, tuple[Any, ...]] = {"act_fn": ("silu",)}


class Inputs(NamedTuple):
    """What a U-Net's parameters depend on beside its attributes.

    Attributes:
        channels: of x and `condition.image` together.
        text: features of a token.
    """

    channels: int
    text: int


def unet_from_config(
    config: Config, *, pooled: int | None = None, **computation: Any
) -> tuple[LatentUNet, Inputs]:
    """The U-Net that diffusers would make.

    Args:
        config: of config.json.
        pooled: features of SDXL's pooled text; by default what six sizes leave.
        computation: remat and dtype.

    Raises:
        ValueError: another model's config, or fields that this U-Net can't have, all named.
    """
    fields = Fields(config, UNET)
    down = fields.names("down_block_types", (DOWN[1],) * 3 + DOWN[:1], DOWN)
    levels = len(down)
    up = fields.names("up_block_types", UP[:1] + (UP[1],) * 3, UP)
    crossed = [name == DOWN[1] for name in down]
    if [name == UP[1] for name in up] != crossed[::-1]:
        fields.wrong("up_block_types", up, "down_block_types from the last one on")
    channels = fields.integers("block_out_channels", (320, 640, 1280, 1280), levels)
    depths = fields.integers("transformer_layers_per_block", 1, levels)
    # What this field holds is the number of heads, for an old mistake in diffusers.
    heads = fields.integers("attention_head_dim", 8, levels)
    blocks = fields.integers("layers_per_block", 2, levels)
    text = fields.integers("cross_attention_dim", 1280, levels)
    for name, values in (("layers_per_block", blocks), ("cross_attention_dim", text)):
        if len(set(values)) > 1:
            fields.wrong(name, values, "one number for all levels")
    classes = fields.optional("num_class_embeds") or 0
    features = fields.optional("addition_time_embed_dim") or 256
    total = fields.optional("projection_class_embeddings_input_dim") or 0
    added = fields.get("addition_embed_type"), fields.get("class_embed_type")
    sizes = 0
    if added[0] is not None:
        sizes = SDXL_SIZES if pooled is None else max(total - pooled, 0) // features
        if total <= sizes * features or (pooled is not None and total != pooled + sizes * features):
            fields.wrong(
                "projection_class_embeddings_input_dim",
                total,
                f"{pooled or 'some'} features of text and {features} for each of {sizes} sizes",
            )
    elif added[1] is None:
        total = 0
    if None not in added or (classes and added != (None, None)):
        fields.wrong("class_embed_type", added[1], "null beside other embeddings")
    settings: dict[str, Any] = {
        "out_channels": fields.integer("out_channels", 4),
        "channels": channels,
        "depths": tuple(depth * cross for depth, cross in zip(depths, crossed, strict=True)),
        "heads": heads,
        "middle_depth": depths[-1],
        "blocks": blocks[0],
        "classes": classes,
        "pooled": total - sizes * features,
        "sizes": sizes,
        "size_features": features,
        "cosine_first": fields.boolean("flip_sin_to_cos", True),
        "shift": fields.integer("freq_shift", 0, least=0),
        "dropout": fields.real("dropout", 0.0),
        "groups": fields.integer("norm_num_groups", 32),
        "epsilon": fields.real("norm_eps", 1e-5),
    }
    inputs = Inputs(fields.integer("in_channels", 4), text[0])
    fields.boolean("use_linear_projection", False)
    fields.check(UNET_FIXED, UNET_IGNORED)
    return LatentUNet(**settings, **computation), inputs


def unet_to_config(unet: LatentUNet, inputs: Inputs) -> dict[str, Any]:
    """diffusers' config.json, but for fields that compute nothing.

    Raises:
        ValueError: what diffusers can't express.
    """
    if unet.depths[-1] not in (0, unet.middle_depth):
        raise ValueError(
            f"diffusers' U-Net has as many blocks in its middle as at its last level, not "
            f"{unet.middle_depth} and {unet.depths[-1]}."
        )
    if unet.classes and (unet.pooled or unet.sizes):
        raise ValueError("diffusers' U-Net has no classes beside a vector or sizes.")
    depths = [*unet.depths[:-1], unet.middle_depth]
    crossed = [depth > 0 for depth in unet.depths]
    total = unet.pooled + unet.sizes * unet.size_features
    return {
        "_class_name": UNET,
        "in_channels": inputs.channels,
        "out_channels": unet.out_channels,
        "block_out_channels": list(unet.channels),
        "down_block_types": [DOWN[cross] for cross in crossed],
        "mid_block_type": UNET_FIXED["mid_block_type"][0],
        "up_block_types": [UP[cross] for cross in crossed[::-1]],
        "transformer_layers_per_block": [max(depth, 1) for depth in depths],
        "attention_head_dim": list(unet.heads),
        "layers_per_block": unet.blocks,
        "cross_attention_dim": inputs.text,
        "num_class_embeds": unet.classes or None,
        "class_embed_type": "projection" if unet.pooled and not unet.sizes else None,
        "addition_embed_type": "text_time" if unet.sizes else None,
        "addition_time_embed_dim": unet.size_features if unet.sizes else None,
        "projection_class_embeddings_input_dim": total or None,
        "flip_sin_to_cos": unet.cosine_first,
        "freq_shift": unet.shift,
        "dropout": unet.dropout,
        "norm_num_groups": unet.groups,
        "norm_eps": unet.epsilon,
        "downsample_padding": 1,
        "act_fn": "silu",
    }


def codec_from_config(config: Config, **computation: Any) -> KLAutoencoder:
    """The autoencoder that diffusers would make.

    Args:
        config: of config.json.
        computation: dtype.

    Raises:
        ValueError: another model's config, or fields that this autoencoder can't have, all named.
    """
    fields = Fields(config, CODEC)
    down, up = ("DownEncoderBlock2D",), ("UpDecoderBlock2D",)
    levels = len(fields.names("down_block_types", down, down))
    fields.names("up_block_types", up, up, length=levels)
    channels = fields.integers("block_out_channels", (64,), levels)
    if any(c % channels[0] for c in channels):
        fields.wrong("block_out_channels", channels, "multiples of the first one")
    pictures = fields.integer("out_channels", 3)
    if fields.integer("in_channels", 3) != pictures:
        fields.wrong("in_channels", config.get("in_channels", 3), f"{pictures}, as out_channels")
    before = fields.boolean("use_quant_conv", True)
    after = fields.boolean("use_post_quant_conv", True)
    if before != after:
        fields.wrong("use_quant_conv", before, f"{after}, as use_post_quant_conv")
    settings: dict[str, Any] = {
        "latents": fields.integer("latent_channels", 4),
        "out_channels": pictures,
        "channels": channels[0],
        "multipliers": tuple(c // channels[0] for c in channels),
        "blocks": fields.integer("layers_per_block", 1),
        "middle_attention": fields.boolean("mid_block_add_attention", True),
        "groups": fields.integer("norm_num_groups", 32),
        "projections": before,
    }
    fields.real("scaling_factor", SCALE, least=1e-6, most=1e6)
    if fields.get("shift_factor") is not None:
        fields.real("shift_factor", 0.0, least=-1e6, most=1e6)
    fields.check(CODEC_FIXED, CODEC_IGNORED)
    return KLAutoencoder(**settings, **computation)


def latent_scale(config: Config) -> tuple[float, float]:
    """What latents are multiplied by for the U-Net, and what is subtracted from them before."""
    return config.get("scaling_factor", SCALE), config.get("shift_factor") or 0.0


def check_channels(where: object, channels: int, latents: int) -> None:
    """Refuses a U-Net that is told of more than texts, latents, and a masked picture's.

    Raises:
        ValueError: it reads neither `latents` nor 2 latents + 1 channels.
    """
    if channels not in (latents, 2 * latents + 1):
        raise ValueError(
            f"the U-Net of {where} reads {channels} channels, and {latents} (latents) or "
            f"{2 * latents + 1} (for inpainting a mask and a picture's latents too) are known "
            "here: one that is told of a depth (5) or of a whole picture (8) can't be drawn."
        )


def codec_to_config(codec: KLAutoencoder) -> dict[str, Any]:
    """diffusers' config.json, but for the latents' scale.

    Raises:
        ValueError: what diffusers can't express.
    """
    if codec.multipliers[0] != 1 or codec.epsilon != 1e-6:
        raise ValueError(
            f"diffusers' AutoencoderKL starts with a multiplier of 1 and has an epsilon of 1e-6, "
            f"not {codec.multipliers[0]} and {codec.epsilon}."
        )
    levels = len(codec.multipliers)
    return {
        "_class_name": CODEC,
        "in_channels": codec.out_channels,
        "out_channels": codec.out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [m * codec.channels for m in codec.multipliers],
        "layers_per_block": codec.blocks,
        "act_fn": "silu",
        "latent_channels": codec.latents,
        "norm_num_groups": codec.groups,
        "use_quant_conv": codec.projections,
        "use_post_quant_conv": codec.projections,
        "mid_block_add_attention": codec.middle_attention,
    }


def unet_shapes(unet: LatentUNet, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """path -> shape of its parameters."""
    side = 2 ** (len(unet.channels) - 1)
    condition = Condition(
        tokens=jnp.zeros((1, 1, inputs.text)),
        vector=jnp.zeros((1, unet.vector)) if unet.vector else None,
    )
    x = jnp.zeros((1, side, side, inputs.channels))
    return _shapes(unet, x, jnp.zeros((1,)), condition)


def unet_inputs(shapes: Shapes) -> Inputs:
    """What a U-Net with parameters of these shapes reads."""
    text = next(shape[-2] for path, shape in shapes.items() if path.endswith("cross/key/kernel"))
    return Inputs(shapes["conv_in/kernel"][2], text)


def codec_shapes(codec: KLAutoencoder) -> dict[str, tuple[int, ...]]:
    """path -> shape of its parameters."""
    return _shapes(codec, jnp.zeros((1, codec.factor, codec.factor, codec.out_channels)))


def _shapes(module: nn.Module, *inputs: Any) -> dict[str, tuple[int, ...]]:
    init = functools.partial(module.init, jax.random.key(0))
    like = jax.eval_shape(init, *inputs)
    return {path: leaf.shape for path, leaf in flat(like["params"]).items()}
