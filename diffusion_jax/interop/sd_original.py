"""Stable Diffusion in one file, in the layout of the papers' own code: 1.x, 2.x and XL."""

import os
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
from diffusion_jax.interop.layouts import Row, Shapes, from_theirs
from diffusion_jax.interop.safetensors import Tensors, open_tensors
from diffusion_jax.interop.sd_config import (
    SCALE,
    Inputs,
    check_channels,
    codec_shapes,
    unet_shapes,
)
from diffusion_jax.interop.sd_original_layouts import (
    CODEC,
    UNET,
    original_codec_rows,
    original_unet_rows,
)
from diffusion_jax.interop.sd_parts import Part
from diffusion_jax.interop.stable_diffusion import StableDiffusion
from diffusion_jax.models.autoencoder import KLAutoencoder, sd_autoencoder
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.clip_blocks import exact_gelu, quick_gelu
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.latent_unet import LatentUNet, sd1_unet, sd2_unet, sdxl_unet

Prediction = Literal["epsilon", "v_prediction", "sample"]


class Text(NamedTuple):
    """A text encoder in the file.

    Attributes:
        prefix: of its names.
        clip: its sizes. Without features, a last block that is in the file isn't in them.
        openai: whether the names are OpenAI's; else transformers'.
        pad: the id that fills its texts up; None is as a tokenizer's folder says.
    """

    prefix: str
    clip: CLIP
    openai: bool
    pad: int | None = None


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
    scale: float = SCALE
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

    Most files don't say how they were trained: that is known of the published ones, but of 2.x not
    what is predicted, v at 768 pixels and noise at 512. Those of XL that predict v say it by an
    array called "v_pred", and by "ztsnr" that their table ends in pure noise.

    Args:
        file: with names that start with "model.diffusion_model.", "first_stage_model." and
            "cond_stage_model." (XL: "conditioner."); others, such as averages, aren't read.
        networks: of these sizes, instead of the published ones that the names tell.
        prediction: what the U-Net predicts; by default v where the file says so, else the noise,
            but of 2.x it must be said.
        dtype: of the modules, where `networks` isn't given.
        parameters: the dtype in which they are kept.

    Raises:
        ValueError: a pickle, a file that is cut short, none of these networks, arrays that don't
            fit, of which the first are named, a U-Net that is told of more than this package
            knows, a 2.x without `prediction`, or one that contradicts the file or goes with
            `networks` without a scheduler.
        FileNotFoundError: no such file.
    """
    with open_tensors(Path(file)) as tensors:
        inputs, linear = inputs_of(tensors)
        n = networks_of(tensors, networks=networks, prediction=prediction, dtype=dtype)

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
            pad = {} if text.pad is None else {"pad_token_id": text.pad}
            texts.append(Part(text.clip, params, pad))
    return StableDiffusion(
        Part(n.unet, unet, {"use_linear_projection": linear, "sample_size": n.side}),
        Part(n.codec, codec, {"scaling_factor": n.scale}),
        tuple(texts),
        n.scheduler,
    )


def networks_of(
    tensors: Tensors,
    *,
    networks: Networks | None = None,
    prediction: Prediction | None = None,
    dtype: Any = jnp.float32,
) -> Networks:
    """What `load_single_file` makes of a file, by its names and shapes: no array is read.

    Args:
        tensors: the file.
        networks, prediction, dtype: as of `load_single_file`.

    Raises:
        ValueError: as `load_single_file`, but for arrays that don't fit.
    """
    inputs, _ = inputs_of(tensors)
    n = networks or _published(inputs.text, dtype)
    check_channels(tensors.where, inputs.channels, n.codec.latents)
    edm = [name for name in tensors.shapes if name.startswith("edm_")]
    if edm:
        raise ValueError(
            f"{tensors.where} was trained with EDM's preconditioning, as {', '.join(edm)} say, and "
            "that isn't known here."
        )
    by_v = "v_pred" in tensors.shapes
    if networks is not None and prediction and not n.scheduler:
        raise ValueError(
            f"the networks given for {tensors.where} have no scheduler, so that nobody would know "
            f"of prediction {prediction!r}: give them one."
        )
    if by_v and prediction not in (None, "v_prediction"):
        raise ValueError(
            f"{tensors.where} predicts v, as its array v_pred says, and not {prediction}: leave "
            "the prediction out."
        )
    if networks is None and inputs.text == 1024 and not by_v and prediction is None:
        raise ValueError(
            f"{tensors.where} is a Stable Diffusion 2.x, and doesn't say what it predicts: "
            "v_prediction (768 pixels) or epsilon (512)."
        )
    found = "v_prediction" if by_v else prediction or "epsilon"
    told: dict[str, Any] = {"prediction_type": found} if n.scheduler else {}
    if by_v and "ztsnr" in tensors.shapes and n.scheduler:
        # "leading" would begin a step below pure noise (Lin et al. 2024, section 3.3).
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    large = inputs.text == 1024 and found == "v_prediction"
    return n._replace(side=96 if large else n.side, scheduler={**n.scheduler, **told})


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


def inputs_of(tensors: Tensors) -> tuple[Inputs, bool]:
    """What the U-Net reads, and whether its transformers' ends are linear layers.

    Raises:
        ValueError: there is no such U-Net in the file.
    """
    shapes = tensors.shapes
    keys = [s for n, s in shapes.items() if n.startswith(UNET) and n.endswith("attn2.to_k.weight")]
    first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
    if not keys or len(keys[0]) != 2 or len(first) != 4:
        raise ValueError(f"{tensors.where} has no U-Net of Stable Diffusion under {UNET!r}.")
    ends = (s for n, s in shapes.items() if n.startswith(UNET) and n.endswith("proj_in.weight"))
    return Inputs(first[1], keys[0][1]), any(len(shape) == 2 for shape in ends)


def _published(features: int, dtype: Any) -> Networks:
    """The networks whose texts have so many features."""
    codec = sd_autoencoder(dtype)

    def text(prefix: str, width: int, layers: int, heads: int, **more: Any) -> Text:
        openai, pad = more.pop("openai", True), more.pop("pad", 0)
        more = {"features": None, "activation": exact_gelu, "dtype": dtype, **more}
        more |= {"vocabulary": 49408, "length": 77, "end": 49407}
        tower = TextTransformer(width=width, layers=layers, heads=heads, **more)
        return Text(prefix, CLIP(None, tower), openai, pad)

    def vit_l(prefix: str) -> Text:
        return text(prefix, 768, 12, 12, openai=False, pad=49407, activation=quick_gelu)

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
