"""Stable Diffusion in one file, in the layout of the papers' own code: 1.x, 2.x and XL.

Names are made from diffusers': both number the same layers, here along the whole way down and up
(`input_blocks`, `output_blocks`), there level by level.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from diffusion_jax.interop.clip_layouts import (
    not_a_parameter,
    openai_text_rows,
    tower_of,
    transformers_rows,
)
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import LINEAR, POINT, Row, Shapes, from_theirs
from diffusion_jax.interop.safetensors import open_tensors
from diffusion_jax.interop.sd_config import Inputs, codec_shapes, unet_shapes
from diffusion_jax.interop.sd_layouts import codec_rows, unet_rows
from diffusion_jax.interop.sd_parts import Part
from diffusion_jax.interop.stable_diffusion import StableDiffusion
from diffusion_jax.models.autoencoder import KLAutoencoder, sd_autoencoder
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_blocks import exact_gelu, quick_gelu
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.latent_unet import LatentUNet, sd1_unet, sd2_unet, sdxl_unet

Prediction = Literal["epsilon", "v_prediction", "sample"]

UNET, CODEC = "model.diffusion_model.", "first_stage_model."
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    **{f"{kind}_embedding.linear_1": "label_emb.0.0" for kind in ("add", "class")},
    **{f"{kind}_embedding.linear_2": "label_emb.0.2" for kind in ("add", "class")},
    "class_embedding": "label_emb",
}
CODEC_NAMES = {
    r"mid_block\.resnets\.0": "mid.block_1",
    r"mid_block\.resnets\.1": "mid.block_2",
    r"mid_block\.attentions\.0\.group_norm": "mid.attn_1.norm",
    r"mid_block\.attentions\.0\.to_out\.0": "mid.attn_1.proj_out",
    r"mid_block\.attentions\.0\.to_(.)": r"mid.attn_1.\1",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    r"resnets": "block",
    r"(up|down)samplers\.0": r"\1sample",
    r"down_blocks": "down",
}


class Text(NamedTuple):
    """A text encoder in the file.

    Attributes:
        prefix: of its names.
        clip: its sizes. Without features, a last block that is in the file isn't in them.
        openai: whether the names are OpenAI's; else transformers'.
    """

    prefix: str
    clip: CLIP
    openai: bool


class Networks(NamedTuple):
    """What a file's parameters are for, and what it doesn't say.

    Attributes:
        unet, codec, texts: the networks.
        scale: of the latents.
        scheduler: as of scheduler_config.json, without prediction_type.
        side: height and width of the latents in training.
    """

    unet: LatentUNet
    codec: KLAutoencoder
    texts: Sequence[Text]
    scale: float = 0.18215
    scheduler: Mapping[str, Any] = {}
    side: int = 64


# Rombach et al. 2022's table, and how 1.x and XL are sampled by those who published them.
_TABLE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
_PNDM = {
    **_TABLE,
    "_class_name": "PNDMScheduler",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
_DDIM = {**_TABLE, "_class_name": "DDIMScheduler", "set_alpha_to_one": False, "clip_sample": False}
_EULER = {**_TABLE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}


def load_single_file(
    file: str | os.PathLike[str],
    *,
    networks: Networks | None = None,
    prediction: Prediction | None = None,
    dtype: Any = jnp.float32,
    parameters: Any = jnp.float32,
) -> StableDiffusion:
    """Stable Diffusion 1.x, 2.x or XL from one safetensors file.

    The file doesn't say how it was trained: that is known of the published ones, but of 2.x not
    what is predicted, v at 768 pixels and noise at 512.

    Args:
        file: with names that start with "model.diffusion_model.", "first_stage_model." and
            "cond_stage_model." (XL: "conditioner."); others, such as averages, aren't read.
        networks: of these sizes, instead of the published ones that the names tell.
        prediction: what the U-Net predicts; by default the noise, but of 2.x it must be said.
        dtype: of the modules, where `networks` isn't given.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: a pickle, a file that is cut short, none of these networks, arrays that don't
            fit, of which the first are named, or a 2.x without `prediction`.
        FileNotFoundError: no such file.
    """
    with open_tensors(Path(file)) as tensors:
        inputs, linear = _told(tensors.shapes, tensors.where)
        n = networks or _published(inputs.text, dtype)
        if networks is None and inputs.text == 1024 and prediction is None:
            raise ValueError(
                f"{file} is a Stable Diffusion 2.x, and doesn't say what it predicts: v_prediction "
                "(768 pixels) or epsilon (512)."
            )

        def read(prefix: str, rows: Sequence[Row], ours: Shapes, ignored: Callable) -> Any:
            return from_theirs(tensors.under(prefix), rows, ours, ignored, parameters)

        unet = read(
            UNET,
            original_unet_rows(n.unet, linear_projection=linear),
            unet_shapes(n.unet, inputs),
            lambda _: False,
        )
        codec = read(
            CODEC,
            original_codec_rows(n.codec),
            codec_shapes(n.codec),
            lambda name: name.startswith((f"{CODEC}loss.", f"{CODEC}model_ema.")),
        )
        texts = []
        for text in n.texts:
            ours = shapes_of(text.clip)
            params = read(text.prefix, _text_rows(text, ours), ours, _beside(text))
            texts.append(Part(text.clip, params))
    side = 96 if inputs.text == 1024 and prediction == "v_prediction" else n.side
    told = {"prediction_type": prediction or "epsilon"} if n.scheduler else {}
    return StableDiffusion(
        Part(n.unet, unet, {"use_linear_projection": linear, "sample_size": side}),
        Part(n.codec, codec, {"scaling_factor": n.scale}),
        tuple(texts),
        {**n.scheduler, **told},
    )


def original_unet_rows(unet: LatentUNet, *, linear_projection: bool) -> list[Row]:
    """The U-Net's table in this layout."""
    rows = unet_rows(unet, linear_projection=linear_projection)
    return [row._replace(theirs=UNET + unet_name(row.theirs, unet)) for row in rows]


def original_codec_rows(codec: KLAutoencoder) -> list[Row]:
    """The autoencoder's table in this layout, where attention's layers are 1x1 convolutions."""

    def renamed(row: Row) -> Row:
        name = codec_name(row.theirs, len(codec.multipliers))
        form = POINT if row.form is LINEAR else row.form
        return row._replace(theirs=CODEC + name, form=form)

    return [renamed(row) for row in codec_rows(codec)]


def unet_name(name: str, unet: LatentUNet) -> str:
    """A name of diffusers' U-Net as it is here."""
    for theirs, here in ENDS.items():
        if name.startswith(f"{theirs}."):
            return here + name.removeprefix(theirs)
    way, rest = name.split("_block", 1)
    if way == "mid":
        kind, number, layer = rest.removeprefix(".").split(".", 2)
        place = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
        return f"{place}.{_residual(layer) if kind == 'resnets' else layer}"
    level, kind, number, layer = rest.removeprefix("s.").split(".", 3)
    layers = unet.blocks + 1  # a level's, the one that resizes included on the way down
    first = int(level) * layers + int(number)
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * layers}.0.{layer.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        attends = unet.depths[len(unet.depths) - 1 - int(level)] > 0
        return f"output_blocks.{first + unet.blocks}.{1 + attends}.{layer}"
    block = f"input_blocks.{first + 1}" if way == "down" else f"output_blocks.{first}"
    return f"{block}.0.{_residual(layer)}" if kind == "resnets" else f"{block}.1.{layer}"


def _residual(layer: str) -> str:
    name, leaf = layer.split(".")
    return f"{RESIDUAL[name]}.{leaf}"


def codec_name(name: str, levels: int) -> str:
    """A name of diffusers' autoencoder as it is here, where levels count from the largest one."""
    for theirs, here in CODEC_NAMES.items():
        name = re.sub(theirs, here, name)
    return re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)


def _text_rows(text: Text, ours: Shapes) -> list[Row]:
    if text.openai:
        rows = openai_text_rows(tower_of(text.clip.text, TextTransformer))
    else:
        rows = transformers_rows(text.clip, ours)
    return [row._replace(theirs=text.prefix + row.theirs) for row in rows]


def _beside(text: Text) -> Callable[[str], bool]:
    """Which of a text encoder's names aren't read: 2.x's ends before the file's last block."""
    tower = tower_of(text.clip.text, TextTransformer)

    def ignored(name: str) -> bool:
        name = name.removeprefix(text.prefix)
        beyond = (f"transformer.resblocks.{tower.layers}.", "text_projection")
        cut = text.openai and tower.features is None and name.startswith(beyond)
        return cut or not_a_parameter(name) or name == "logit_scale"

    return ignored


def _told(shapes: Shapes, where: Path) -> tuple[Inputs, bool]:
    """What the U-Net reads, and whether its transformers' ends are linear layers."""
    keys = [s for n, s in shapes.items() if n.startswith(UNET) and n.endswith("attn2.to_k.weight")]
    first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
    if not keys or len(keys[0]) != 2 or len(first) != 4:
        raise ValueError(f"{where} has no U-Net of Stable Diffusion under {UNET!r}.")
    ends = (s for n, s in shapes.items() if n.startswith(UNET) and n.endswith("proj_in.weight"))
    return Inputs(first[1], keys[0][1]), any(len(shape) == 2 for shape in ends)


def _published(features: int, dtype: Any) -> Networks:
    """The networks whose texts have so many features."""
    codec = sd_autoencoder(dtype)

    def text(prefix: str, width: int, layers: int, heads: int, **more: Any) -> Text:
        openai = more.pop("openai", True)
        more = {"features": None, "activation": exact_gelu, "dtype": dtype, **more}
        more |= {"vocabulary": 49408, "length": 77, "end": 49407}
        tower = TextTransformer(width=width, layers=layers, heads=heads, **more)
        return Text(prefix, CLIP(None, tower), openai)

    def vit_l(prefix: str) -> Text:
        return text(prefix, 768, 12, 12, openai=False, activation=quick_gelu)

    known: Mapping[int, Callable[[], Networks]] = {
        768: lambda: Networks(
            sd1_unet(dtype=dtype),
            codec,
            [vit_l("cond_stage_model.transformer.")],
            scheduler=_PNDM,
        ),
        1024: lambda: Networks(
            sd2_unet(dtype=dtype),
            codec,
            [text("cond_stage_model.model.", 1024, 23, 16)],
            scheduler=_DDIM,
        ),
        2048: lambda: Networks(
            sdxl_unet(dtype=dtype),
            codec,
            [
                vit_l("conditioner.embedders.0.transformer."),
                text("conditioner.embedders.1.model.", 1280, 32, 20, features=1280),
            ],
            scale=0.13025,
            scheduler=_EULER,
            side=128,
        ),
    }
    if features not in known:
        raise ValueError(
            f"a U-Net whose texts have {features} features isn't Stable Diffusion's 1.x (768), 2.x "
            "(1024) or XL (2048); give `networks`."
        )
    return known[features]()
