"""Stable Diffusion in one file: published sizes by their names, and what doesn't fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.random_checkpoint import write_tokenizer
from diffusion_jax.data import BytePairs
from diffusion_jax.interop import load_single_file, open_tensors
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import flat, to_theirs
from diffusion_jax.interop.sd_layouts import unet_rows
from diffusion_jax.interop.sd_original import (
    Networks,
    Text,
    _published,
    _text_rows,
    networks_of,
)
from diffusion_jax.interop.sd_original_layouts import (
    original_codec_rows,
    original_unet_rows,
    unet_name,
)
from diffusion_jax.interop.sd_scheduler import read_grid
from diffusion_jax.interop.sd_system import load_tokenizers
from diffusion_jax.interop.sd_table import read_trained
from diffusion_jax.models import CLIP, sd1_unet, sdxl_unet
from tests.interop.sd import CODEC, SECOND, TEXT, UNET, XL, blank, drawn, params_of, same, system

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


MARKS = {"v_pred": np.zeros(0, np.float32), "ztsnr": np.zeros(0, np.float32)}


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([], {"prediction_type": "epsilon"}),
        (["v_pred"], {"prediction_type": "v_prediction"}),
        (
            MARKS,
            {
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
        ),
    ],
)
def test_files_may_say_what_they_predict(tmp_path, marks, expected):
    file = tmp_path / "sd.safetensors"
    n = networks(xl=True)._replace(scheduler={"_class_name": "DDIMScheduler"})
    write(file, n, linear=True)
    save_file({**load_file(file), **{name: MARKS[name] for name in marks}}, file)
    found = load_single_file(file, networks=n)
    assert found.scheduler == {"_class_name": "DDIMScheduler", **expected}
    read_trained(found.scheduler)
    assert (read_grid(found.scheduler, 4)[0] == 1.0) == (marks is MARKS)
    if marks:
        load_single_file(file, networks=n, prediction="v_prediction")
        with pytest.raises(ValueError, match="predicts v, as its array v_pred says, and not eps"):
            load_single_file(file, networks=n, prediction="epsilon")


@pytest.mark.parametrize("mark", ["edm_mean", "edm_vpred.sigma_max"])
def test_files_trained_with_edms_preconditioning_are_refused(tmp_path, mark):
    """Their U-Net is SDXL's by name and shape, and would draw noise."""
    file = blank(tmp_path / "sd.safetensors", 2048)
    save_file({**load_file(file), mark: np.zeros(1, np.float32)}, file)
    with pytest.raises(ValueError, match=f"EDM's preconditioning, as {mark} say"):
        load_single_file(file)


def test_a_prediction_is_not_dropped(tmp_path):
    file, n = tmp_path / "sd.safetensors", networks()
    write(file, n, linear=False)
    with pytest.raises(ValueError, match=r"have no scheduler.*of prediction 'v_prediction'"):
        load_single_file(file, networks=n, prediction="v_prediction")
    n = n._replace(scheduler={"beta_schedule": "linear"})
    found = load_single_file(file, networks=n, prediction="v_prediction")
    assert found.scheduler == {"beta_schedule": "linear", "prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("features", "prediction", "side", "pads"),
    [
        (768, None, 64, [49407]),
        (1024, "epsilon", 64, [0]),
        (1024, "v_prediction", 96, [0]),
        (2048, None, 128, [49407, 0]),
    ],
)
def test_files_are_told_before_an_array_is_read(tmp_path, features, prediction, side, pads):
    with open_tensors(blank(tmp_path / "sd.safetensors", features)) as tensors:
        n = networks_of(tensors, prediction=prediction)
        if features == 1024:
            with pytest.raises(ValueError, match=r"2\.x, and doesn't say what it predicts"):
                networks_of(tensors)
    assert n.side == side and [text.pad for text in n.texts] == pads
    assert n.scheduler["prediction_type"] == (prediction or "epsilon")


def test_what_fills_a_text_up_is_the_encoders_and_not_the_tokenizers(tmp_path):
    file, n = tmp_path / "sd.safetensors", networks(xl=True)
    write(file, n, linear=True)
    words = BytePairs.from_merges([])
    write_tokenizer(tmp_path / "tokenizer", words)

    def filled(*pads):
        texts = [text._replace(pad=pad) for text, pad in zip(n.texts, pads, strict=True)]
        parts = load_single_file(file, networks=n._replace(texts=texts))
        ids = [one.encode("a") for one in load_tokenizers(tmp_path, parts)]
        assert [len(one) for one in ids] == [TEXT.length] * 2
        return [one[-1] for one in ids]

    assert filled(words.end, 0) == [words.end, 0]
    with pytest.raises(FileNotFoundError, match=r"has 1 of the tokenizers .* for 2 text encoders"):
        filled(None, 0)
    write_tokenizer(tmp_path / "tokenizer_2", words)
    assert filled(None, 0) == [words.end, 0]


def test_what_is_not_stable_diffusion_is_refused(tmp_path):
    file = tmp_path / "sd.safetensors"
    write(file, networks(), linear=False)
    with pytest.raises(ValueError, match="texts have 12 features isn't Stable Diffusion's"):
        load_single_file(file)
    arrays = load_file(file)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save_file({**arrays, first: np.zeros((8, 8, 3, 3), np.float32)}, file)
    with pytest.raises(ValueError, match=r"reads 8 channels, and 4 .* or 9 "):
        load_single_file(file, networks=networks())
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
