"""Stable Diffusion in one file: published sizes by their names, and what doesn't fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion_jax.interop import load_single_file
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import flat, to_theirs
from diffusion_jax.interop.sd_layouts import unet_rows
from diffusion_jax.interop.sd_original import (
    Networks,
    Text,
    _published,
    _text_rows,
    original_codec_rows,
    original_unet_rows,
    unet_name,
)
from diffusion_jax.models import CLIP, sd1_unet, sdxl_unet
from tests.interop.sd import CODEC, SECOND, TEXT, UNET, XL, drawn, params_of, same, system

# Names as they are in the published files.
SD1 = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_2.bias": "time_embed.2.bias",
    "down_blocks.0.resnets.1.time_emb_proj.weight": "input_blocks.2.0.emb_layers.1.weight",
    "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.3.0.op.weight",
    "down_blocks.1.resnets.0.conv_shortcut.bias": "input_blocks.4.0.skip_connection.bias",
    "down_blocks.2.attentions.1.proj_in.weight": "input_blocks.8.1.proj_in.weight",
    "down_blocks.3.resnets.1.norm1.weight": "input_blocks.11.0.in_layers.0.weight",
    "mid_block.attentions.0.norm.weight": "middle_block.1.norm.weight",
    "mid_block.resnets.1.conv2.weight": "middle_block.2.out_layers.3.weight",
    "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.2.1.conv.weight",
    "up_blocks.1.upsamplers.0.conv.weight": "output_blocks.5.2.conv.weight",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias": (
        "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0.bias"
    ),
    "conv_norm_out.weight": "out.0.weight",
}
SDXL = {
    "add_embedding.linear_1.weight": "label_emb.0.0.weight",
    "down_blocks.1.attentions.0.transformer_blocks.1.ff.net.0.proj.weight": (
        "input_blocks.4.1.transformer_blocks.1.ff.net.0.proj.weight"
    ),
    "up_blocks.0.upsamplers.0.conv.bias": "output_blocks.2.2.conv.bias",
    "up_blocks.1.upsamplers.0.conv.bias": "output_blocks.5.2.conv.bias",
}


@pytest.mark.parametrize(("unet", "names"), [(sd1_unet(), SD1), (sdxl_unet(), SDXL)])
def test_names_of_the_published_files(unet, names):
    known = {name for row in unet_rows(unet, linear_projection=True) for name in row.names()}
    for theirs, here in names.items():
        assert theirs in known, theirs
        assert unet_name(theirs, unet) == here


def networks(xl=False):
    first = Text("cond_stage_model.transformer.", CLIP(None, TEXT), False)
    second = Text("conditioner.embedders.1.model.", CLIP(None, SECOND), True)
    return Networks(XL if xl else UNET, CODEC, [first, second][: 1 + xl], scale=0.5)


def write(file, n, *, linear):
    """The file in this layout, by its own table."""
    parts = system(xl=len(n.texts) == 2)
    arrays = {}
    tables = [
        (original_unet_rows(n.unet, linear_projection=linear), parts.unet),
        (original_codec_rows(n.codec), parts.codec),
    ]
    for text, part in zip(n.texts, parts.texts, strict=True):
        shapes = {path: leaf.shape for path, leaf in flat(part.params).items()}
        tables.append((_text_rows(text, shapes), part))
    for rows, part in tables:
        read = to_theirs(rows, flat(part.params))
        arrays |= {name: np.ascontiguousarray(read(name)) for r in rows for name in r.names()}
    arrays["model_ema.decay"] = np.zeros(3, np.float32)  # isn't read
    arrays["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(7)
    save_file(arrays, file)
    return parts


@pytest.mark.parametrize("xl", [False, True])
def test_a_file_is_read_into_the_same_parts_as_a_folder(tmp_path, xl):
    n = networks(xl)
    expected = write(tmp_path / "sd.safetensors", n, linear=xl)
    found = load_single_file(tmp_path / "sd.safetensors", networks=n)
    for a, b in zip(params_of(found), params_of(expected), strict=True):
        same(a, b)
    assert found.scale == 0.5 and found.scheduler == {}
    assert found.unet.config == {"use_linear_projection": xl, "sample_size": 64}


def test_a_text_encoder_may_end_before_the_files_last_block(tmp_path):
    """2.x reads the last but one block's output, and its file has the last block too."""
    cut = TEXT.clone(features=None)
    whole, less = (
        Text("cond_stage_model.model.", CLIP(None, tower), True)
        for tower in (cut.clone(layers=3, features=6), cut)
    )
    n = networks()
    write(tmp_path / "sd.safetensors", n, linear=False)
    arrays = load_file(tmp_path / "sd.safetensors")
    read = _text_rows(whole, {})
    params = drawn(shapes_of(whole.clip))
    theirs = to_theirs(read, flat(params))
    arrays |= {name: np.ascontiguousarray(theirs(name)) for r in read for name in r.names()}
    save_file(arrays, tmp_path / "sd.safetensors")
    found = load_single_file(tmp_path / "sd.safetensors", networks=n._replace(texts=[less]))
    expected = {
        path: leaf[:2] if path.startswith("blocks/") else leaf
        for path, leaf in flat(params["text"]).items()
        if "project" not in path
    }
    found = flat(found.texts[0].params["text"])
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_array_equal(leaf, expected[path])


@pytest.mark.parametrize(("features", "layers"), [(768, [12]), (1024, [23]), (2048, [12, 32])])
def test_published_networks_are_told_by_their_texts_features(features, layers):
    known = _published(features, jnp.bfloat16)
    towers = [text.clip.text for text in known.texts]
    assert [tower.layers for tower in towers] == layers
    assert sum(tower.width for tower in towers) == features
    modules = (known.unet, known.codec, *towers)
    assert all(module.dtype == jnp.bfloat16 for module in modules)


def test_what_is_not_stable_diffusion_is_refused(tmp_path):
    file = tmp_path / "sd.safetensors"
    write(file, networks(), linear=False)
    with pytest.raises(ValueError, match="texts have 12 features isn't Stable Diffusion's"):
        load_single_file(file)
    arrays = load_file(file)
    del arrays["first_stage_model.quant_conv.bias"]
    arrays["model.diffusion_model.extra"] = np.zeros(1, np.float32)
    save_file(arrays, file)
    with pytest.raises(ValueError, match=r"model\.diffusion_model\.extra has no counterpart"):
        load_single_file(file, networks=networks())
    del arrays["model.diffusion_model.extra"]
    extra = "cond_stage_model.transformer.text_model.extra"
    arrays["first_stage_model.quant_conv.bias"] = np.zeros(8, np.float32)
    save_file({**arrays, extra: np.zeros(1, np.float32)}, file)
    with pytest.raises(ValueError, match=r"text_model\.extra has no counterpart"):
        load_single_file(file, networks=networks())
    del arrays["first_stage_model.quant_conv.bias"]
    save_file(arrays, file)
    with pytest.raises(ValueError, match=r"first_stage_model\.quant_conv\.bias is missing"):
        load_single_file(file, networks=networks())
    save_file({"a": np.zeros(1, np.float32)}, file)
    with pytest.raises(ValueError, match=r"has no U-Net .* under 'model\.diffusion_model\.'"):
        load_single_file(file)
