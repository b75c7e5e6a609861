"""CLIP's parameters in the layout of transformers, and in OpenAI's, which OpenCLIP shares."""

from typing import TypeVar

from diffusion_jax.interop.layouts import (
    CONVOLUTION,
    LINEAR,
    Row,
    Shapes,
    linear,
    norm,
    patches,
)
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_resnet import ModifiedResNet
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.clip_vision import VisionTransformer
from diffusion_jax.models.cuts import STACK

Tower = TypeVar("Tower")
OURS = ("query", "key", "value", "out", "mlp1", "mlp2")
THEIRS = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
    *("mlp.fc1", "mlp.fc2"),
)


def transformers_rows(clip: CLIP, shapes: Shapes, *, prefixed: bool = True) -> list[Row]:
    """transformers' `CLIPModel`, or one tower of it.

    Args:
        clip: of two towers or one; pictures by a vision transformer.
        shapes: path -> shape of its parameters.
        prefixed: whether names start with "text_model." and "vision_model.", as all do but those
            of towers without a projection, in later versions.
    """
    rows: list[Row] = []
    if clip.text is not None:
        tower = tower_of(clip.text, TextTransformer)
        top = "text_model." if prefixed else ""
        rows += [
            Row(f"{top}embeddings.token_embedding.weight", ("text/words",)),
            Row(f"{top}embeddings.position_embedding.weight", ("text/places",)),
            *_blocks(f"{top}encoder.layers", "text", tower.layers),
            *norm(f"{top}final_layer_norm", "text/norm_out"),
        ]
        if tower.features is not None:
            rows += linear("text_projection", "text/project", bias=False)
    if clip.image is not None:
        vision = tower_of(clip.image, VisionTransformer)
        top = "vision_model." if prefixed else ""
        rows += [
            *_vision_ends(
                (f"{top}embeddings.class_embedding", f"{top}embeddings.patch_embedding.weight"),
                f"{top}embeddings.position_embedding.weight",
                vision.patch,
            ),
            *norm(f"{top}pre_layrnorm", "image/norm_in"),
            *_blocks(f"{top}encoder.layers", "image", vision.layers),
            *norm(f"{top}post_layernorm", "image/norm_out"),
        ]
        if vision.features is not None:
            rows += linear("visual_projection", "image/project", bias=False)
    return rows + _scales(shapes)


def _blocks(theirs: str, ours: str, depth: int) -> list[Row]:
    rows: list[Row] = []
    for name, layer in zip(THEIRS, OURS, strict=True):
        rows += linear(f"{theirs}.{{}}.{name}", f"{ours}/{STACK}/{layer}", depth)
    for i in (1, 2):
        rows += norm(f"{theirs}.{{}}.layer_norm{i}", f"{ours}/{STACK}/norm{i}", depth)
    return rows


def _vision_ends(names: tuple[str, str], places: str, patch: int) -> list[Row]:
    return [
        Row(names[0], ("image/class",)),
        Row(names[1], ("image/patches/kernel",), patches(patch)),
        Row(places, ("image/places",)),
    ]


def _scales(shapes: Shapes) -> list[Row]:
    names = (("logit_scale", "scale"), ("logit_bias", "bias"))
    return [Row(theirs, (ours,)) for theirs, ours in names if ours in shapes]


def openai_rows(clip: CLIP, shapes: Shapes) -> list[Row]:
    """OpenAI's state, of which OpenCLIP's has the same names.

    Raises:
        ValueError: a residual network with another norm than `FrozenBatchNorm`, a tower that lacks
            or isn't projected.
    """
    text = tower_of(clip.text, TextTransformer)
    if text.features is None or getattr(clip.image, "features", None) is None:
        raise ValueError("OpenAI's layout projects both towers: give them features.")
    rows = openai_text_rows(text)
    if isinstance(clip.image, ModifiedResNet):
        if "image/stem_norm1/mean" not in shapes:
            raise ValueError(
                "OpenAI's layout of a residual network holds batch norms' statistics; make the "
                "ModifiedResNet with norm=FrozenBatchNorm."
            )
        rows += _resnet(clip.image)
    else:
        vision = tower_of(clip.image, VisionTransformer)
        rows += [
            *_vision_ends(
                ("visual.class_embedding", "visual.conv1.weight"),
                "visual.positional_embedding",
                vision.patch,
            ),
            *norm("visual.ln_pre", "image/norm_in"),
            *_resblocks("visual.transformer.resblocks", "image", vision.layers),
            *norm("visual.ln_post", "image/norm_out"),
            Row("visual.proj", ("image/project/kernel",)),
        ]
    return rows + _scales(shapes)


def openai_text_rows(text: TextTransformer) -> list[Row]:
    """The texts' half of OpenAI's state."""
    rows = [
        Row("token_embedding.weight", ("text/words",)),
        Row("positional_embedding", ("text/places",)),
        *_resblocks("transformer.resblocks", "text", text.layers),
        *norm("ln_final", "text/norm_out"),
    ]
    if text.features is not None:
        rows.append(Row("text_projection", ("text/project/kernel",)))
    return rows


def _resblocks(theirs: str, ours: str, depth: int) -> list[Row]:
    theirs, ours = f"{theirs}.{{}}", f"{ours}/{STACK}"

    def three(leaf: str) -> tuple[str, ...]:
        return tuple(f"{ours}/{layer}/{leaf}" for layer in ("query", "key", "value"))

    return [
        Row(f"{theirs}.attn.in_proj_weight", three("kernel"), LINEAR, depth),
        Row(f"{theirs}.attn.in_proj_bias", three("bias"), depth=depth),
        *linear(f"{theirs}.attn.out_proj", f"{ours}/out", depth),
        *linear(f"{theirs}.mlp.c_fc", f"{ours}/mlp1", depth),
        *linear(f"{theirs}.mlp.c_proj", f"{ours}/mlp2", depth),
        *norm(f"{theirs}.ln_1", f"{ours}/norm1", depth),
        *norm(f"{theirs}.ln_2", f"{ours}/norm2", depth),
    ]


def _resnet(tower: ModifiedResNet) -> list[Row]:
    rows: list[Row] = []
    for i in (1, 2, 3):
        rows += _convolution(f"visual.conv{i}", f"image/stem{i}")
        rows += _batch_norm(f"visual.bn{i}", f"image/stem_norm{i}")
    for stage, depth in enumerate(tower.layers):
        for block in range(depth):
            theirs, ours = f"visual.layer{stage + 1}.{block}", f"image/stage{stage}_block{block}"
            for i in (1, 2, 3):
                rows += _convolution(f"{theirs}.conv{i}", f"{ours}/conv{i}")
                rows += _batch_norm(f"{theirs}.bn{i}", f"{ours}/norm{i}")
            if block == 0:
                rows += _convolution(f"{theirs}.downsample.0", f"{ours}/skip")
                rows += _batch_norm(f"{theirs}.downsample.1", f"{ours}/skip_norm")
    rows.append(Row("visual.attnpool.positional_embedding", ("image/pool/positions",)))
    for letter, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("c", "out")):
        rows += linear(f"visual.attnpool.{letter}_proj", f"image/pool/{ours}")
    return rows


def _convolution(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", (f"{ours}/kernel",), CONVOLUTION)]


def _batch_norm(theirs: str, ours: str) -> list[Row]:
    statistics = (("running_mean", "mean"), ("running_var", "var"))
    rows = [Row(f"{theirs}.{name}", (f"{ours}/{leaf}",)) for name, leaf in statistics]
    return norm(theirs, ours) + rows


def not_a_parameter(name: str) -> bool:
    """What files have beside parameters: numbers of positions, counts of batches, sizes."""
    sizes = ("input_resolution", "context_length", "vocab_size", "attn_mask")
    return name in sizes or name.endswith(("position_ids", "num_batches_tracked"))


def tower_of(tower: object, kind: type[Tower]) -> Tower:
    """The tower, if it is of the kind that a layout knows."""
    if not isinstance(tower, kind):
        raise ValueError(
            f"this layout knows a {kind.__name__}, and the CLIP has {type(tower).__name__}."
        )
    return tower
