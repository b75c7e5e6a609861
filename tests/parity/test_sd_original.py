"""The original layout's names, and kohya's, against the converters of diffusers."""

import copy
import os

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

from diffusers.loaders import lora_conversion_utils, single_file_utils  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from diffusion_jax.interop import merge_lora  # noqa: E402
from diffusion_jax.interop.layouts import flat, their_shapes, to_theirs  # noqa: E402
from diffusion_jax.interop.sd_config import codec_to_config, unet_inputs, unet_to_config  # noqa: E402
from diffusion_jax.interop.sd_layouts import codec_rows, unet_rows  # noqa: E402
from diffusion_jax.interop.sd_original_layouts import original_codec_rows, original_unet_rows  # noqa: E402
from tests.interop.sd import CODEC, params_of, same, system  # noqa: E402


def arrays_of(rows, part):
    """name -> tensor of a part, by a table."""
    read = to_theirs(rows, flat(part.params))
    names = [name for row in rows for name in row.names()]
    return {name: torch.from_numpy(np.array(read(name), order="C")) for name in names}


def compare(converted, expected):
    assert converted.keys() == expected.keys()
    for name, array in expected.items():
        # A 1x1 convolution may come back as the linear layer that it is.
        assert torch.equal(converted[name].reshape(array.shape), array), name


@pytest.mark.parametrize("xl", [False, True])
def test_unets_are_converted_to_the_same_arrays(xl):
    part = system(xl=xl).unet
    inputs = unet_inputs({path: leaf.shape for path, leaf in flat(part.params).items()})
    config = unet_to_config(part.module, inputs)
    original = arrays_of(original_unet_rows(part.module, linear_projection=xl), part)
    converted = single_file_utils.convert_ldm_unet_checkpoint(original, config)
    compare(converted, arrays_of(unet_rows(part.module, linear_projection=xl), part))


def test_autoencoders_are_converted_to_the_same_arrays():
    part = system().codec
    original = arrays_of(original_codec_rows(CODEC), part)
    converted = single_file_utils.convert_ldm_vae_checkpoint(original, codec_to_config(CODEC))
    compare(converted, arrays_of(codec_rows(CODEC), part))


def test_kohyas_file_is_merged_like_the_one_that_diffusers_makes_of_it(tmp_path):
    parts = system()
    shapes = {path: tuple(leaf.shape) for path, leaf in flat(parts.unet.params).items()}
    weights = their_shapes(unet_rows(parts.unet.module, linear_projection=False), shapes)
    generator = torch.Generator().manual_seed(0)
    kohya = {}
    for name, shape in weights.items():
        if ".attn" in name and name.endswith(".weight"):
            layer = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            kohya[f"{layer}.lora_down.weight"] = torch.randn((3, shape[1]), generator=generator)
            kohya[f"{layer}.lora_up.weight"] = torch.randn((shape[0], 3), generator=generator)
            kohya[f"{layer}.alpha"] = torch.tensor(1.5)
    convert = lora_conversion_utils._convert_non_diffusers_lora_to_diffusers
    converted, alphas = convert(copy.deepcopy(kohya))
    assert len(converted) == 2 * len(alphas) == 2 * len(kohya) // 3
    # It names an alpha after the factor that it goes with.
    ends = {"_lora.down.weight.alpha": ".alpha", ".processor": "", "to_out.": "to_out.0."}
    for old, new in ends.items():
        alphas = {name.replace(old, new): alpha for name, alpha in alphas.items()}
    merged = []
    for i, arrays in enumerate((kohya, {**converted, **alphas})):
        arrays = {name: torch.as_tensor(x, dtype=torch.float32) for name, x in arrays.items()}
        save_file(arrays, tmp_path / f"{i}.safetensors")
        merged.append(params_of(merge_lora(parts, tmp_path / f"{i}.safetensors")))
    for a, b in zip(*merged, strict=True):
        same(a, b)
    key = "middle_attention/blocks/self/key/kernel"
    assert not np.array_equal(flat(merged[0][0])[key], flat(parts.unet.params)[key])
