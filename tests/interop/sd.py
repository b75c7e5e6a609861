"""A Stable Diffusion of a few thousand parameters, drawn by NumPy: nothing to compile."""

import functools
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from diffusion_jax.interop import Part, StableDiffusion, save_stable_diffusion
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import flat, nested
from diffusion_jax.interop.sd_config import Inputs, codec_shapes, unet_shapes
from diffusion_jax.models import CLIP, KLAutoencoder, LatentUNet, TextTransformer, exact_gelu

UNET = LatentUNet(channels=(8, 16), depths=(2, 0), heads=(2, 4), blocks=1, groups=4)
UNET = UNET.clone(middle_depth=1)
XL = UNET.clone(depths=(0, 3), middle_depth=3, pooled=6, sizes=6, size_features=4)
CODEC = KLAutoencoder(channels=8, multipliers=(1, 2), blocks=1, groups=4)
TEXT = TextTransformer(None, 11, 7, width=12, layers=2, heads=2, end=10, hidden=16)
SECOND = TEXT.clone(features=6, width=8, activation=exact_gelu)


def drawn(shapes, seed=0):
    random = np.random.default_rng(seed)
    return nested({p: jnp.asarray(random.normal(size=s), jnp.float32) for p, s in shapes.items()})


@functools.cache
def system(*, xl=False, channels=4, seed=0):
    """The parts of 1.x, or of XL."""
    unet = XL if xl else UNET
    clips = [CLIP(None, TEXT)] + [CLIP(None, SECOND)] * xl
    shapes = unet_shapes(unet, Inputs(channels, 20 if xl else 12))
    return StableDiffusion(
        Part(unet, drawn(shapes, seed), {"sample_size": 8, "use_linear_projection": xl}),
        Part(CODEC, drawn(codec_shapes(CODEC), seed), {"scaling_factor": 0.5}),
        tuple(Part(clip, drawn(shapes_of(clip), seed)) for clip in clips),
        {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    )


@functools.cache
def refiner():
    """XL's refiner: the second encoder alone, and five sizes."""
    whole, unet = system(xl=True), XL.clone(sizes=5)
    params = drawn(unet_shapes(unet, Inputs(4, 8)))
    return whole._replace(
        unet=Part(unet, params, {"sample_size": 8, "use_linear_projection": True}),
        texts=whole.texts[1:],
        pipeline={
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "requires_aesthetics_score": True,
            "force_zeros_for_empty_prompt": False,
            "text_encoder": [None, None],
            "tokenizer": [None, None],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        },
    )


def tokenizers(folder: Path) -> Path:
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "vocab.json").write_text(json.dumps({name: 0}))
    return folder


def saved(folder: Path, **which) -> Path:
    """The folder of a pipeline of these parts."""
    target = folder / "pipeline"
    save_stable_diffusion(target, system(**which), tokenizers(folder / "elsewhere"))
    return target


def same(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype, path
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def params_of(parts):
    return [part.params for part in (parts.unet, parts.codec, *parts.texts)]


def edit(file: Path, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def blank(file: Path, features: int, *, channels: int = 4) -> Path:
    """A file by whose names and shapes alone a published U-Net is told."""
    shapes = {
        "input_blocks.0.0.weight": (8, channels, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, features),
    }
    arrays = {f"model.diffusion_model.{n}": np.zeros(s, np.float32) for n, s in shapes.items()}
    save_file(arrays, file)
    return file
