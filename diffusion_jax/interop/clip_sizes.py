"""The sizes of a CLIP: from transformers' config.json and back."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.interop.clip_fields import FIELDS, listed, number, per_channel, section
from diffusion_jax.interop.clip_layouts import tower_of
from diffusion_jax.interop.layouts import Shapes, flat
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_blocks import Activation, exact_gelu, quick_gelu
from diffusion_jax.models.clip_resnet import ModifiedResNet
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.clip_vision import VisionTransformer

Config = Mapping[str, Any]
ACTIVATIONS: Mapping[str, Activation] = {
    "quick_gelu": quick_gelu,
    "gelu": exact_gelu,
    "gelu_pytorch_tanh": nn.gelu,
    "gelu_new": nn.gelu,
}
# What transformers takes where a config says nothing.
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
LEGACY_END = 2  # configs from before 2023: a text ends at its largest id, the vocabulary's last one


def from_config(config: Config, names: Shapes, pictures: Config, **computation: Any) -> CLIP:
    """The CLIP that transformers would make.

    Args:
        config: of config.json.
        names: of the file's arrays, which say whether one tower alone is projected.
        pictures: of preprocessor_config.json, for mean and std; may be empty.
        computation: remat and dtype of the towers.

    Raises:
        ValueError: another model's config, or a field that no CLIP has so.
    """
    kind = config.get("model_type")
    told = {**pictures_of(pictures), **computation}
    if kind == "clip":
        text, vision = (
            {**section(config, f"{part}_config"), **section(config, f"{part}_config_dict")}
            for part in ("text", "vision")
        )
        features = _features(config)
        return CLIP(_vision(vision, features, told), _text(text, features, computation))
    projected = any(name.endswith("_projection.weight") for name in names)
    projected |= any("WithProjection" in name for name in listed(config, "architectures"))
    if kind == "clip_text_model":
        features = _features(config) if projected else None
        return CLIP(None, _text(config, features, computation))
    if kind == "clip_vision_model":
        features = _features(config) if projected else None
        return CLIP(_vision(config, features, told), None)
    raise ValueError(f"config.json is of a model_type {kind!r}, and no CLIP's.")


def pictures_of(config: Config) -> dict[str, Any]:
    """mean and std, where preprocessor_config.json has them."""
    bounds = (("mean", -math.inf), ("std", 0.0))
    return {
        ours: per_channel(config, f"image_{ours}", above=above)
        for ours, above in bounds
        if f"image_{ours}" in config
    }


def _features(config: Config) -> int | None:
    return number("projection_dim", config.get("projection_dim", 512))


def _text(config: Config, features: int | None, computation: Config) -> TextTransformer:
    c = _fields(TEXT, config)
    end = c["eos_token_id"]
    return TextTransformer(
        features,
        c["vocab_size"],
        c["max_position_embeddings"],
        c["hidden_size"],
        c["num_hidden_layers"],
        c["num_attention_heads"],
        end=c["vocab_size"] - 1 if end == LEGACY_END else end,
        **_shared(c),
        **computation,
    )


def _vision(config: Config, features: int | None, told: Config) -> VisionTransformer:
    c = _fields(VISION, config)
    channels = c["num_channels"]
    tower = VisionTransformer(
        features,
        c["hidden_size"],
        c["num_hidden_layers"],
        c["num_attention_heads"],
        c["patch_size"],
        c["image_size"],
        **_shared(c),
        **told,
    )
    if channels != len(tower.mean):
        raise ValueError(
            f"pictures have {channels} channels in config.json, and {len(tower.mean)} in "
            "preprocessor_config.json (3 without one)."
        )
    return tower


def _fields(defaults: Config, config: Config) -> dict[str, Any]:
    """What a tower reads; where a config says nothing, what transformers takes."""
    c = {name: config.get(name, default) for name, default in defaults.items()}
    c |= {name: _side(name, c[name]) for name in ("patch_size", "image_size") if name in c}
    for name, value in c.items():
        if name in FIELDS:
            number(name, value)
    return c


def _shared(c: Config) -> dict[str, Any]:
    name = c["hidden_act"]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"hidden_act is {name!r:.60} in config.json; {', '.join(ACTIVATIONS)} are known."
        )
    return {
        "activation": ACTIVATIONS[name],
        "epsilon": c["layer_norm_eps"],
        "hidden": c["intermediate_size"],
    }


def _side(name: str, value: Any) -> Any:
    sides = value if isinstance(value, list) and value else [value]
    if any(side != sides[0] for side in sides):
        raise ValueError(
            f"pictures and patches are square here, and config.json has {name} {value!r:.60}."
        )
    return sides[0]


def to_config(clip: CLIP) -> dict[str, Any]:
    """transformers' config.json.

    Raises:
        ValueError: what transformers can't express.
    """
    if clip.bias:
        raise ValueError("transformers' CLIP has no bias of the logits (logit_bias).")
    text = None if clip.text is None else _text_config(tower_of(clip.text, TextTransformer))
    vision = None
    if clip.image is not None:
        vision = _vision_config(tower_of(clip.image, VisionTransformer))
    if text is None or vision is None:
        return _alone(text, "Text") if text is not None else _alone(vision or {}, "Vision")
    features = {text["projection_dim"], vision["projection_dim"]}
    if len(features) != 1 or None in features:
        raise ValueError(f"transformers' CLIPModel projects both towers alike, not to {features}.")
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": features.pop(),
        "logit_scale_init_value": math.log(1 / 0.07),
        "text_config": text,
        "vision_config": vision,
    }


def _alone(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Of one tower: whether it is projected says the class."""
    suffix = "" if config["projection_dim"] is None else "WithProjection"
    known = {name: value for name, value in config.items() if value is not None}
    return {"architectures": [f"CLIP{kind}Model{suffix}"], **known}


def _text_config(tower: TextTransformer) -> dict[str, Any]:
    if tower.end == LEGACY_END != tower.vocabulary - 1:
        raise ValueError(
            f"transformers reads an eos_token_id of {LEGACY_END} as the largest id of a text; "
            "give texts another end."
        )
    return {
        "model_type": "clip_text_model",
        "vocab_size": tower.vocabulary,
        "max_position_embeddings": tower.length,
        "eos_token_id": tower.end,
        "pad_token_id": tower.end,
        "bos_token_id": None if tower.end == 0 else tower.end - 1,
        **_tower_config(tower),
    }


def _vision_config(tower: VisionTransformer) -> dict[str, Any]:
    return {
        "model_type": "clip_vision_model",
        "num_channels": len(tower.mean),
        "image_size": tower.image_size,
        "patch_size": tower.patch,
        **_tower_config(tower),
    }


def _tower_config(tower: TextTransformer | VisionTransformer) -> dict[str, Any]:
    names = [name for name, function in ACTIVATIONS.items() if function is tower.activation]
    if not names:
        raise ValueError(f"transformers has no name for the activation {tower.activation}.")
    return {
        "hidden_act": names[0],
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden or 4 * tower.width,
        "layer_norm_eps": tower.epsilon,
        "num_attention_heads": tower.heads,
        "num_hidden_layers": tower.layers,
        "projection_dim": tower.features,
    }


def to_pictures(tower: VisionTransformer) -> dict[str, Any]:
    """transformers' preprocessor_config.json."""
    side = tower.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(tower.mean),
        "image_std": list(tower.std),
        "do_convert_rgb": True,
    }


def shapes_of(clip: CLIP) -> dict[str, tuple[int, ...]]:
    """path -> shape of its parameters."""
    pixels = tokens = None
    if clip.image is not None:
        tower = clip.image
        if not isinstance(tower, ModifiedResNet):
            tower = tower_of(tower, VisionTransformer)
        side = tower.image_size
        pixels = jax.ShapeDtypeStruct((1, side, side, len(tower.mean)), jnp.float32)
    if clip.text is not None:
        tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    if pixels is None and tokens is None:
        raise ValueError("a CLIP without towers has no parameters.")
    given = {"encode_text": (tokens,), "encode_image": (pixels,)}
    method = "encode_text" if pixels is None else "encode_image"
    inputs = given[method] if pixels is None or tokens is None else (pixels, tokens)
    chosen = method if len(inputs) == 1 else "__call__"
    init = functools.partial(clip.init, method=chosen)
    like = jax.eval_shape(init, jax.random.key(0), *inputs)
    return {path: leaf.shape for path, leaf in flat(like["params"]).items()}
