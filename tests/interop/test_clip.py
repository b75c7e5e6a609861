"""CLIP's parameters through safetensors and back, and files that don't fit."""

import json
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion_jax.interop import load_clip, open_tensors, save_clip, save_openai_clip
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import flat, nested
from diffusion_jax.models import (
    CLIP,
    FrozenBatchNorm,
    ModifiedResNet,
    TextTransformer,
    VisionTransformer,
    exact_gelu,
)

VISION = VisionTransformer(6, width=128, layers=2, heads=2, patch=4, image_size=8, hidden=48)
TEXT = TextTransformer(6, 11, 7, width=64, layers=3, heads=1, end=10, hidden=256)
RESNET = ModifiedResNet(6, (1, 2), 8, 1, 16, norm=FrozenBatchNorm)
BOTH = CLIP(VISION, TEXT)


def drawn(clip, seed=0):
    """Random parameters, drawn by NumPy: nothing to compile."""
    random = np.random.default_rng(seed)
    shapes = shapes_of(clip)
    return nested({p: jnp.asarray(random.normal(size=s), jnp.float32) for p, s in shapes.items()})


def same(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for path in a:
        assert b[path].dtype == jnp.float32
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


@pytest.fixture
def folder(tmp_path):
    save_clip(tmp_path / "clip", BOTH, drawn(BOTH))
    return tmp_path / "clip"


@pytest.mark.parametrize(
    "clip",
    [
        BOTH,
        CLIP(
            VISION.clone(heads=4, activation=exact_gelu, mean=(0.5,) * 3, std=(0.5, 0.25, 0.5)),
            TEXT.clone(end=4, heads=4, epsilon=1e-6),
        ),
        CLIP(None, TEXT),
        CLIP(None, TEXT.clone(features=None)),
        CLIP(VISION, None),
        CLIP(VISION.clone(features=None), None),
    ],
    ids=["both", "other_settings", "text", "text_plain", "image", "image_plain"],
)
def test_there_and_back_in_the_layout_of_transformers(clip, tmp_path):
    params = drawn(clip)
    save_clip(tmp_path, clip, params)
    found, loaded = load_clip(tmp_path)
    assert found == clip
    same(params, loaded)


@pytest.mark.parametrize(
    "clip",
    [BOTH, CLIP(VISION, TEXT, bias=True), CLIP(RESNET, TEXT)],
    ids=["vision", "bias", "resnet"],
)
def test_there_and_back_in_the_layout_of_openai(clip, tmp_path):
    params = drawn(clip)
    save_openai_clip(tmp_path / "clip.safetensors", clip, params)
    found, loaded = load_clip(tmp_path / "clip.safetensors")
    image = found.image.clone(norm=FrozenBatchNorm) if clip.image is RESNET else found.image
    assert (image, found.bias) == (clip.image, clip.bias)
    assert found.text == clip.text.clone(hidden=256)
    same(params, loaded)


def test_both_layouts_give_the_same_answer(folder, tmp_path):
    file = tmp_path / "openai.safetensors"
    save_openai_clip(file, BOTH, drawn(BOTH))
    pixels, tokens = jnp.zeros((1, 8, 8, 3)), jnp.array([[1, 2, 10]])
    answers = []
    for path in (folder, file):
        clip, params = load_clip(path)
        answers.append(jax.jit(clip.apply)({"params": params}, pixels, tokens))
    jax.tree.map(np.testing.assert_array_equal, *answers)


def test_sizes_that_shapes_do_not_tell_are_given(tmp_path):
    clip = CLIP(VISION.clone(heads=8, activation=exact_gelu), TEXT.clone(end=4))
    file = tmp_path / "clip.safetensors"
    save_openai_clip(file, clip, drawn(clip))
    found, params = load_clip(file, clip=clip)
    assert found is clip
    same(drawn(clip), params)


def test_remat_and_dtype_reach_the_towers(folder):
    clip, params = load_clip(folder, remat="full", dtype=jnp.bfloat16)
    assert clip == CLIP(*(t.clone(remat="full", dtype=jnp.bfloat16) for t in (VISION, TEXT)))
    same(drawn(BOTH), params)


def test_half_precision_becomes_float32(folder):
    file = folder / "model.safetensors"
    arrays = load_file(file)
    for half in (np.float16, ml_dtypes.bfloat16):
        save_file({name: x.astype(half) for name, x in arrays.items()}, file)
        _, params = load_clip(folder)
        expected = jax.tree.map(
            lambda x, half=half: x.astype(half).astype(jnp.float32), drawn(BOTH)
        )
        same(expected, params)


def shard(folder):
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(arrays), {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        save_file({name: arrays[name] for name in names[i::3]}, folder / file)
        index.update(dict.fromkeys(names[i::3], file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return index


def test_shards_are_read_by_their_index(folder):
    shard(folder)
    same(drawn(BOTH), load_clip(folder)[1])


def test_shards_that_lack_are_named(folder):
    index = shard(folder)
    index["text_projection.weight.more"] = index["text_projection.weight"]
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ValueError, match=r"lack text_projection\.weight\.more"):
        load_clip(folder)
    (folder / index["logit_scale"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*-of-00003"):
        load_clip(folder)
    file.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(ValueError, match="outside of its folder"):
        load_clip(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": None}, {"weight_map": {"a": 3}}])
def test_an_index_without_a_map_is_refused(folder, index):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json has no weight_map, an object of array ->"):
        load_clip(folder)


def test_everything_that_does_not_fit_is_named_at_once(folder):
    file = folder / "model.safetensors"
    arrays = load_file(file)
    del arrays["text_projection.weight"]
    layer = "vision_model.encoder.layers.1"
    arrays[f"{layer}.mlp.fc1.weight"] = arrays[f"{layer}.mlp.fc1.weight"].T.copy()
    arrays["logit_scale"] = np.array(3)
    arrays["text_model.extra"] = np.ones(2, np.float32)
    arrays["text_model.embeddings.position_ids"] = np.arange(7)[None]  # is no parameter
    save_file(arrays, file)
    with pytest.raises(ValueError, match="doesn't fit, in 4 arrays") as caught:
        load_clip(folder)
    message = str(caught.value)
    assert message.splitlines()[1:] == [
        "  logit_scale has dtype I64, and floats are wanted;",
        "  text_model.extra has no counterpart here;",
        "  text_projection.weight is missing;",
        f"  {layer}.mlp.fc1.weight has shape (128, 48), and (48, 128) is wanted.",
    ]


@pytest.mark.parametrize("kept", [0, 5, 400, -4])
def test_a_file_that_is_cut_short_is_refused(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut short, or isn't a safetensors file"):
        load_clip(folder)


def test_pickles_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"is a pickle.*Convert it .*save_file"):
            load_clip(path)


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        load_clip(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty has no safetensors"):
        load_clip(tmp_path / "empty")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json, which has the sizes"):
        load_clip(folder)
    same(drawn(BOTH), load_clip(folder, clip=BOTH)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "model_type 'siglip'"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
        ({"vision_config": {"image_size": [8, 4]}}, r"square here, .*\[8, 4\]"),
        ({"vision_config": {"num_channels": 1}}, "1 channels in config.json, and 3"),
        ({"text_config": {"eos_token_id": [1, 2]}}, r"eos_token_id is \[1, 2\]"),
    ],
)
def test_a_config_that_is_not_known_is_refused(folder, change, message):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_clip(folder)


def test_the_legacy_end_is_the_last_id(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["eos_token_id"] = 2
    file.write_text(json.dumps(config))
    assert load_clip(folder)[0].text.end == 10


@pytest.mark.parametrize(
    ("save", "clip", "message"),
    [
        (save_clip, CLIP(VISION, TEXT, bias=True), "no bias of the logits"),
        (save_clip, CLIP(RESNET, TEXT), "knows a VisionTransformer, .* has ModifiedResNet"),
        (save_clip, CLIP(VISION, TEXT.clone(features=5)), "both towers alike"),
        (save_clip, CLIP(VISION, TEXT.clone(end=2)), "eos_token_id of 2"),
        (save_clip, CLIP(VISION, TEXT.clone(activation=jnp.tanh)), "no name for the activation"),
        (save_openai_clip, CLIP(None, TEXT), "knows a VisionTransformer|projects both"),
        (save_openai_clip, CLIP(VISION, TEXT.clone(features=None)), "projects both"),
        (
            save_openai_clip,
            CLIP(ModifiedResNet(6, (1,), 8, 1, 16), TEXT),
            "norm=FrozenBatchNorm",
        ),
    ],
)
def test_what_a_layout_can_not_express_is_refused(save, clip, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "out", clip, drawn(clip))
    assert not (tmp_path / "out").exists()


def test_parameters_of_another_clip_are_refused(tmp_path):
    params = drawn(BOTH)
    params["text"]["words"] = params["text"]["words"][:-1]
    with pytest.raises(ValueError, match="parameters: text/words lack"):
        save_clip(tmp_path / "out", BOTH, params)


def test_a_file_is_whole_or_not_there(folder):
    """What is written is as long as its header says, and read lazily."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert (8 + length) % 8 == 0 and len(raw) == 8 + length + max(ends)
    assert [f.name for f in folder.iterdir() if "partial" in f.name] == []
    with open_tensors(file) as tensors:
        assert tensors.shapes["logit_scale"] == () and tensors.dtypes["logit_scale"] == "F32"
