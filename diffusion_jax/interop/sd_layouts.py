"""The parameters of Stable Diffusion's U-Net and autoencoder under diffusers' names."""

from diffusion_jax.interop.layouts import CONVOLUTION, LINEAR, POINT, Form, Row, linear, norm
from diffusion_jax.models.autoencoder import KLAutoencoder
from diffusion_jax.models.cuts import STACK
from diffusion_jax.models.latent_unet import LatentUNet

# Names of an autoencoder's attention: today's, and those from before 2023.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
OLD_ATTENTION = ("query", "key", "value", "proj_attn")
OURS = ("query", "key", "value", "out")


def unet_rows(unet: LatentUNet, *, linear_projection: bool) -> list[Row]:
    """diffusers' `UNet2DConditionModel`.

    Args:
        unet: whose parameters they are.
        linear_projection: whether a transformer's first and last layer are linear in the file;
            else they are 1x1 convolutions, which compute the same.
    """
    form = LINEAR if linear_projection else POINT
    last = len(unet.channels) - 1
    rows = _convolution("conv_in", "conv_in")
    for i in (1, 2):
        rows += linear(f"time_embedding.linear_{i}", f"time{i}")
    if unet.classes:
        rows.append(Row("class_embedding.weight", ("class/kernel",)))
    if unet.pooled or unet.sizes:
        added = "add_embedding" if unet.sizes else "class_embedding"
        for i in (1, 2):
            rows += linear(f"{added}.linear_{i}", f"added{i}")

    left = unet.channels[0]
    for i, channels in enumerate(unet.channels):
        theirs = f"down_blocks.{i}"
        for j in range(unet.blocks):
            rows += _residual(f"{theirs}.resnets.{j}", f"down{i}_block{j}", skip=left != channels)
            rows += _transformer(
                f"{theirs}.attentions.{j}", f"down{i}_attention{j}", unet.depths[i], form
            )
            left = channels
        if i < last:
            rows += _convolution(f"{theirs}.downsamplers.0.conv", f"down{i}_resize")

    for j in (0, 1):
        rows += _residual(f"mid_block.resnets.{j}", f"middle_block{j}")
    rows += _transformer("mid_block.attentions.0", "middle_attention", unet.middle_depth, form)

    for i in range(last, -1, -1):
        theirs = f"up_blocks.{last - i}"
        for j in range(unet.blocks + 1):
            # What is concatenated has more channels than what comes out.
            rows += _residual(f"{theirs}.resnets.{j}", f"up{i}_block{j}", skip=True)
            rows += _transformer(
                f"{theirs}.attentions.{j}", f"up{i}_attention{j}", unet.depths[i], form
            )
        if i > 0:
            rows += _convolution(f"{theirs}.upsamplers.0.conv", f"up{i}_resize")
    return rows + norm("conv_norm_out", "norm_out") + _convolution("conv_out", "conv_out")


def codec_rows(codec: KLAutoencoder, attention: tuple[str, ...] = ATTENTION) -> list[Row]:
    """diffusers' `AutoencoderKL`; `attention` is how the file names attention's four layers."""
    last = len(codec.multipliers) - 1
    rows: list[Row] = []
    left = 1
    for i, m in enumerate(codec.multipliers):
        for j in range(codec.blocks):
            rows += _residual(
                f"encoder.down_blocks.{i}.resnets.{j}",
                f"encoder/down{i}_block{j}",
                time=False,
                skip=left != m,
            )
            left = m
        if i < last:
            rows += _convolution(
                f"encoder.down_blocks.{i}.downsamplers.0.conv", f"encoder/down{i}_resize/conv"
            )
    for i in range(last, -1, -1):
        theirs, m = f"decoder.up_blocks.{last - i}", codec.multipliers[i]
        for j in range(codec.blocks + 1):
            rows += _residual(
                f"{theirs}.resnets.{j}", f"decoder/up{i}_block{j}", time=False, skip=left != m
            )
            left = m
        if i > 0:
            rows += _convolution(f"{theirs}.upsamplers.0.conv", f"decoder/up{i}_resize")
    for half in ("encoder", "decoder"):
        rows += _convolution(f"{half}.conv_in", f"{half}/conv_in")
        for j in (0, 1):
            theirs, ours = f"{half}.mid_block.resnets.{j}", f"{half}/middle_block{j}"
            rows += _residual(theirs, ours, time=False)
        if codec.middle_attention:
            theirs, ours = f"{half}.mid_block.attentions.0", f"{half}/middle_attention"
            rows += norm(f"{theirs}.group_norm", f"{ours}/norm")
            for name, layer in zip(attention, OURS, strict=True):
                rows += linear(f"{theirs}.{name}", f"{ours}/{layer}")
        rows += norm(f"{half}.conv_norm_out", f"{half}/norm_out")
        rows += _convolution(f"{half}.conv_out", f"{half}/conv_out")
    if codec.projections:
        rows += linear("quant_conv", "before", form=POINT)
        rows += linear("post_quant_conv", "after", form=POINT)
    return rows


def _convolution(theirs: str, ours: str) -> list[Row]:
    return linear(theirs, ours, form=CONVOLUTION)


def _residual(theirs: str, ours: str, *, time: bool = True, skip: bool = False) -> list[Row]:
    rows = norm(f"{theirs}.norm1", f"{ours}/norm1") + norm(f"{theirs}.norm2", f"{ours}/norm2")
    for i in (1, 2):
        rows += _convolution(f"{theirs}.conv{i}", f"{ours}/conv{i}")
    if time:
        rows += linear(f"{theirs}.time_emb_proj", f"{ours}/embed")
    if skip:
        rows += linear(f"{theirs}.conv_shortcut", f"{ours}/skip", form=POINT)
    return rows


def _transformer(theirs: str, ours: str, depth: int, form: Form) -> list[Row]:
    if depth == 0:
        return []
    rows = norm(f"{theirs}.norm", f"{ours}/norm")
    rows += linear(f"{theirs}.proj_in", f"{ours}/project_in", form=form)
    rows += linear(f"{theirs}.proj_out", f"{ours}/project_out", form=form)
    theirs, ours = f"{theirs}.transformer_blocks.{{}}", f"{ours}/{STACK}"
    for i in (1, 2, 3):
        rows += norm(f"{theirs}.norm{i}", f"{ours}/norm{i}", depth)
    for name, layer in (("attn1", "self"), ("attn2", "cross")):
        for letter, part in zip(ATTENTION[:3], OURS[:3], strict=True):
            rows += linear(f"{theirs}.{name}.{letter}", f"{ours}/{layer}/{part}", depth, bias=False)
        rows += linear(f"{theirs}.{name}.to_out.0", f"{ours}/{layer}/out", depth)
    rows += linear(f"{theirs}.ff.net.0.proj", f"{ours}/mlp1", depth)
    return rows + linear(f"{theirs}.ff.net.2", f"{ours}/mlp2", depth)
