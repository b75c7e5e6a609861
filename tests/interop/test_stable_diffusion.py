"""Stable Diffusion's folders: there and back, variants and shards, and what doesn't fit."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from diffusion_jax.interop import (
    Part,
    load_autoencoder,
    load_stable_diffusion,
    load_unet,
    save_autoencoder,
    save_stable_diffusion,
    save_unet,
)
from tests.interop.sd import (
    CODEC,
    UNET,
    XL,
    edit,
    params_of,
    same,
    saved,
    system,
)

STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "pipeline")


@pytest.mark.parametrize("which", [{}, {"xl": True}, {"channels": 9}], ids=["1", "xl", "inpaint"])
def test_there_and_back(tmp_path, which):
    expected, found = system(**which), load_stable_diffusion(saved(tmp_path, **which))
    assert found.unet.module == expected.unet.module
    assert found.codec.module == expected.codec.module
    assert [t.module for t in found.texts] == [t.module for t in expected.texts]
    assert found.scheduler == expected.scheduler
    assert (found.scale, found.shift) == (0.5, 0.0)
    assert found.unet.config == expected.unet.config
    for a, b in zip(params_of(found), params_of(expected), strict=True):
        same(a, b)


def test_tokenizers_are_copied_and_asked_for(tmp_path, folder):
    assert (folder / "tokenizer" / "vocab.json").is_file()
    assert not (folder / "tokenizer_2").exists()
    with pytest.raises(FileNotFoundError, match="there is no tokenizer in"):
        save_stable_diffusion(tmp_path / "other", system(), tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


def test_dtypes_of_modules_and_of_parameters(folder):
    found = load_stable_diffusion(folder, dtype=jnp.bfloat16, parameters=jnp.bfloat16, remat="full")
    assert found.unet.module == UNET.clone(dtype=jnp.bfloat16, remat="full")
    assert found.codec.module == CODEC.clone(dtype=jnp.bfloat16)
    for a, b in zip(params_of(found), params_of(system()), strict=True):
        same(a, jax.tree.map(lambda x: x.astype(jnp.bfloat16), b))


def as_variant(file, variant, dtype):
    """Rounds a file's arrays and puts the variant into its name, as diffusers does."""
    arrays = {name: x.astype(dtype) for name, x in load_file(file).items()}
    stem = file.name.removesuffix(".safetensors")
    save_file(arrays, file.with_name(f"{stem}.{variant}.safetensors"))
    return arrays


def test_variants_are_chosen_by_name(folder):
    files = [folder / "unet" / f"{STEM}.safetensors", folder / "vae" / f"{STEM}.safetensors"]
    files.append(folder / "text_encoder" / "model.safetensors")
    for file in files:
        as_variant(file, "fp16", np.float16)
        as_variant(file, "bf16", ml_dtypes.bfloat16)
    for variant, dtype in ((None, np.float32), ("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        found = load_stable_diffusion(folder, variant=variant)
        for a, b in zip(params_of(found), params_of(system()), strict=True):
            same(a, jax.tree.map(lambda x, d=dtype: x.astype(d).astype(jnp.float32), b))
    with pytest.raises(FileNotFoundError, match="no part has a variant 'fp8'; there is bf16, fp16"):
        load_stable_diffusion(folder, variant="fp8")

    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"has .*bf16.*fp16.*: name one of the variants"):
        load_unet(folder / "unet")
    files[0].with_name(f"{STEM}.bf16.safetensors").unlink()
    load_unet(folder / "unet")  # the only one there is


def test_a_part_without_the_variant_has_its_plain_file_read(folder):
    """Stable Diffusion 1.5 has a U-Net "non_ema", and nothing else of it."""
    file = folder / "unet" / f"{STEM}.safetensors"
    save_file({k: 2 * x for k, x in load_file(file).items()}, file.with_stem(f"{STEM}.non_ema"))
    found = load_stable_diffusion(folder, variant="non_ema")
    for i, (a, b) in enumerate(zip(params_of(found), params_of(system()), strict=True)):
        same(a, jax.tree.map(lambda x, i=i: x if i else 2 * x, b))
    with pytest.raises(FileNotFoundError, match="unet has no variant 'fp16'"):
        load_unet(folder / "unet", variant="fp16")


@pytest.mark.parametrize(
    ("variant", "index", "named"),
    [  # as diffusers and transformers name them, and as diffusers did
        (None, f"{STEM}.safetensors.index.json", f"{STEM}-{{}}.safetensors"),
        ("fp16", f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-{{}}.safetensors"),
        ("fp16", f"{STEM}.safetensors.index.fp16.json", f"{STEM}-{{}}.fp16.safetensors"),
        ("fp16", f"{STEM}.fp16.safetensors.index.json", f"{STEM}-{{}}.safetensors"),
    ],
)
def test_shards_are_read_by_their_index(folder, variant, index, named):
    file = folder / "unet" / f"{STEM}.safetensors"
    arrays = load_file(file)
    names, where = sorted(arrays), {}
    for i in range(2):
        shard = named.format(f"{i + 1:05}-of-00002")
        save_file({name: arrays[name] for name in names[i::2]}, file.with_name(shard))
        where.update(dict.fromkeys(names[i::2], shard))
    file.with_name(index).write_text(json.dumps({"weight_map": where}))
    file.unlink()
    for asked in {variant, None}:  # None: the only one there is
        same(load_unet(folder / "unet", variant=asked).params, system().unet.params)
    file.with_name(shard).unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*-of-00002"):
        load_unet(folder / "unet", variant=variant)


def test_old_names_of_the_autoencoders_attention(folder):
    file = folder / "vae" / f"{STEM}.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", r"to_out\.0": "proj_attn"}
    arrays = {}
    for name, array in load_file(file).items():
        for today, before in old.items():
            name = re.sub(rf"(attentions\.0)\.{today}\.", rf"\1.{before}.", name)
        arrays[name] = array
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in arrays
    save_file(arrays, file)
    same(load_autoencoder(folder / "vae").params, system().codec.params)


@pytest.mark.parametrize("linear", [False, True])
def test_projections_are_convolutions_or_linear(tmp_path, linear):
    part = system().unet._replace(config={"use_linear_projection": linear})
    save_unet(tmp_path, part)
    shape = load_file(tmp_path / f"{STEM}.safetensors")["mid_block.attentions.0.proj_in.weight"]
    assert shape.ndim == (2 if linear else 4)
    same(load_unet(tmp_path).params, part.params)


@pytest.mark.parametrize("pooled", [6, 10, None])
def test_what_of_a_vector_is_pooled_text(tmp_path, pooled):
    """6 + 6 x 4 features may also be 10 + 5 x 4: the text encoder says which."""
    save_unet(tmp_path, system(xl=True).unet)
    found = load_unet(tmp_path, pooled=pooled).module
    assert found == XL.clone(pooled=pooled or 6, sizes=5 if pooled == 10 else 6)
    with pytest.raises(ValueError, match="projection_class_embeddings_input_dim is 30"):
        load_unet(tmp_path, pooled=7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "Transformer2DModel"}, "_class_name 'Transformer2DModel', and UNet2DC"),
        ({"mid_block_type": None}, "mid_block_type is None, and must be 'UNetMidBlock2DCrossAttn'"),
        ({"only_cross_attention": True}, "only_cross_attention is True"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256, and must be absent"),
        ({"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type is 'text_proj'"),
        ({"addition_embed_type": "image"}, "addition_embed_type is 'image'"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"block_out_channels": [8]}, r"block_out_channels is \[8\], .* or 2 of them"),
        ({"block_out_channels": [8, "16"]}, "block_out_channels"),
        ({"down_block_types": ["AttnDownBlock2D"]}, r"down_block_types is \['AttnDownBlock2D'\]"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "from the last one on"),
        ({"attention_head_dim": 0}, "attention_head_dim is 0"),
        ({"layers_per_block": [1, 2]}, "one number for all levels"),
        ({"in_channels": True}, "in_channels is True"),
        ({"norm_eps": "1e-5"}, "norm_eps is '1e-5'"),
        ({"reverse_transformer_layers_per_block": [1, 2]}, "reverse_transformer_layers_per_block"),
        ({"conv_in_kernel": 5, "act_fn": "gelu"}, r"act_fn is 'gelu'[^$]*conv_in_kernel is 5"),
    ],
)
def test_unets_that_are_not_known_are_refused_by_name(folder, change, message):
    edit(folder / "unet" / "config.json", **change)
    with pytest.raises(ValueError, match=message):
        load_unet(folder / "unet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "'AutoencoderTiny', and AutoencoderKL"),
        ({"latents_mean": [0.0] * 4}, "latents_mean is"),
        ({"use_quant_conv": False}, "use_quant_conv is False, and must be True"),
        ({"block_out_channels": [8, 12]}, "multiples of the first one"),
        ({"in_channels": 1}, "in_channels is 1, and must be 3"),
        ({"up_block_types": ["UpDecoderBlock2D"]}, "a list of 2 names of UpDecoderBlock2D"),
        ({"down_block_types": "DownEncoderBlock2D"}, "a list of names"),
        ({"scaling_factor": "0.5"}, "scaling_factor is '0.5'"),
    ],
)
def test_autoencoders_that_are_not_known_are_refused_by_name(folder, change, message):
    edit(folder / "vae" / "config.json", **change)
    with pytest.raises(ValueError, match=message):
        load_autoencoder(folder / "vae")


def test_everything_that_does_not_fit_is_named_at_once(folder):
    file = folder / "unet" / f"{STEM}.safetensors"
    arrays = load_file(file)
    del arrays["conv_out.bias"]
    name = "down_blocks.0.attentions.0.transformer_blocks.1.attn2.to_k.weight"
    arrays[name] = arrays[name].T.copy()
    arrays["conv_in.bias"] = arrays["conv_in.bias"].astype(np.int32)
    arrays["extra"] = np.zeros(1, np.float32)
    save_file(arrays, file)
    with pytest.raises(ValueError, match="doesn't fit, in 4 arrays") as caught:
        load_unet(folder / "unet")
    assert str(caught.value).splitlines()[1:] == [
        "  conv_in.bias has dtype I32, and floats are wanted;",
        "  conv_out.bias is missing;",
        f"  {name} has shape (12, 8), and (8, 12) is wanted;",
        "  extra has no counterpart here.",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FluxPipeline"}, "is a 'FluxPipeline'; these pipelines are known"),
        ({"unet": ["diffusers", "UNet3D"]}, "unet is a 'UNet3D', and UNet2DConditionModel is"),
        ({"vae": None, "text_encoder": ["a", "T5"]}, "vae is a None.*; text_encoder is a 'T5'"),
    ],
)
def test_pipelines_that_are_not_known_are_refused_by_name(folder, change, message):
    edit(folder / "model_index.json", **change)
    with pytest.raises(ValueError, match=message):
        load_stable_diffusion(folder)


def test_parts_that_are_not_there_are_named(folder):
    for name in ("scheduler", "tokenizer"):
        shutil.rmtree(folder / name)
    (folder / "vae" / "config.json").unlink()
    (folder / "unet" / f"{STEM}.safetensors").rename(folder / "unet" / f"{STEM}.fp16.safetensors")
    (folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_stable_diffusion(folder, variant="bf16")
    assert str(caught.value).endswith(
        "lacks parts that it names: there is no vae/config.json; there is no "
        "scheduler/scheduler_config.json; there is no tokenizer/; no part has a variant 'bf16'; "
        "there is fp16; there is no text_encoder/model.safetensors."
    )
    (folder / "unet" / f"{STEM}.fp16.safetensors").rename(folder / "unet" / f"{STEM}.safetensors")
    (folder / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*model_index\.json"):
        load_stable_diffusion(folder)
    (folder / "unet" / f"{STEM}.safetensors").rename(folder / "unet" / f"{STEM}.bin")
    with pytest.raises(ValueError, match="is a pickle"):
        load_unet(folder / "unet")


def test_a_unet_is_taken_instead_of_the_folders(folder):
    (folder / "unet" / f"{STEM}.safetensors").unlink()
    mine = system(seed=1).unet
    assert load_stable_diffusion(folder, unet=mine).unet is mine


@pytest.mark.parametrize("channels", [5, 8])
def test_unets_that_are_told_of_other_pictures_are_refused(folder, channels):
    edit(folder / "unet" / "config.json", in_channels=channels)
    with pytest.raises(ValueError, match=rf"reads {channels} channels, and 4 .* or 9 "):
        load_stable_diffusion(folder)


@pytest.mark.parametrize(
    ("save", "part", "message"),
    [
        (
            save_unet,
            system().unet._replace(module=UNET.clone(middle_depth=1, depths=(2, 2))),
            "mid",
        ),
        (save_unet, system().unet._replace(module=UNET.clone(blocks=2)), "LatentUNet's parameters"),
        (save_autoencoder, Part(CODEC.clone(multipliers=(2, 2)), {}), "multiplier of 1"),
        (save_autoencoder, Part(CODEC.clone(epsilon=1e-5), {}), "epsilon of 1e-6"),
    ],
)
def test_what_diffusers_can_not_express_is_not_written(tmp_path, save, part, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "out", part)
    assert not (tmp_path / "out").exists()
