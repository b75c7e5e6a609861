"""The layout of the papers' own code: names of Stable Diffusion's U-Net and autoencoder.

Names are made from diffusers': both number the same layers, here along the whole way down and up
(`input_blocks`, `output_blocks`), there level by level.
"""

import re

from diffusion_jax.interop.layouts import LINEAR, POINT, Row
from diffusion_jax.interop.sd_layouts import codec_rows, unet_rows
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.latent_unet import LatentUNet

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
