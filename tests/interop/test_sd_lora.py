"""Low-rank updates are added to the weights that they name, under every library's names."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusion_jax.interop import merge_lora
from diffusion_jax.interop.layouts import flat
from tests.interop.sd import params_of, same, system

RANK = 2
QUERY = "down_blocks.0.attentions.0.transformer_blocks.1.attn2.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
WORD = "text_model.encoder.layers.1.self_attn.q_proj"
SIZES = {QUERY: (8, 8), OUT: (16, 16), WORD: (12, 12)}


def factors(name):
    """(A, B) of a layer."""
    random = np.random.default_rng(len(name))
    outputs, inputs = SIZES[name]
    shapes = (RANK, inputs), (outputs, RANK)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def kohya(prefix, name):
    return f"{prefix}_{name.replace('.', '_')}"


# style -> the names of A and B of a layer
STYLES = {
    "peft": ("{}.{}.lora_A.weight", "{}.{}.lora_B.weight"),
    "adapter": ("{}.{}.lora_A.default.weight", "{}.{}.lora_B.default.weight"),
    "diffusers": ("{}.{}.lora.down.weight", "{}.{}.lora.up.weight"),
    "linear_layer": (
        "{}.{}.lora_linear_layer.down.weight",
        "{}.{}.lora_linear_layer.up.weight",
    ),
}


def names(style, name):
    part = "text_encoder" if name == WORD else "unet"
    if style == "transformers5":
        name = name.removeprefix("text_model.")
    if style == "kohya":
        layer = kohya("lora_te" if name == WORD else "lora_unet", name)
        return f"{layer}.lora_down.weight", f"{layer}.lora_up.weight"
    if style in ("processor", "attention"):
        block, layer = name.removesuffix(".0").rsplit(".", 1)
        layer = f"to_{layer[0]}" if name == WORD else layer
        between = "." if name == WORD or style == "attention" else ".processor."
        block = f"{part}.{block}{between}{layer}_lora"
        return tuple(f"{block}.{s}.weight" for s in ("down", "up"))
    return tuple(s.format(part, name) for s in STYLES.get(style, STYLES["peft"]))


def write(file, style, layers=(QUERY, OUT, WORD), **more):
    arrays = {}
    for layer in layers:
        arrays |= dict(zip(names(style, layer), factors(layer), strict=True))
    save_file({**arrays, **more}, file)
    return file


def change(merged):
    """What of the system has changed: path -> the difference."""
    found = {}
    for i, (a, b) in enumerate(zip(params_of(merged), params_of(system()), strict=True)):
        a, b = flat(a), flat(b)
        assert a.keys() == b.keys()
        found |= {(i, p): np.asarray(a[p] - b[p]) for p in a if not np.array_equal(a[p], b[p])}
    return found


def expected(name, scale=1.0):
    down, up = factors(name)
    return scale * (up @ down).T


@pytest.mark.parametrize("style", [*STYLES, "processor", "attention", "kohya", "transformers5"])
def test_each_style_of_names_reaches_the_same_weights(tmp_path, style):
    file = write(tmp_path / "lora.safetensors", style)
    found = change(merge_lora(system(), file, scale=0.5))
    paths = {
        QUERY: (0, "down0_attention0/blocks/cross/query/kernel"),
        OUT: (0, "middle_attention/blocks/self/out/kernel"),
        WORD: (2, "text/blocks/query/kernel"),
    }
    assert set(found) == set(paths.values())
    query, word = found[paths[QUERY]], found[paths[WORD]]
    assert not query[0].any() and not word[0].any()  # the other layer of the stack
    for name, update in ((QUERY, query[1]), (OUT, found[paths[OUT]][0]), (WORD, word[1])):
        np.testing.assert_allclose(update, expected(name, 0.5), rtol=1e-4, atol=1e-5)


def test_merging_with_the_opposite_scale_undoes_it(tmp_path):
    file = write(tmp_path / "lora.safetensors", "peft")
    back = merge_lora(merge_lora(system(), file, scale=0.7), file, scale=-0.7)
    for a, b in zip(params_of(back), params_of(system()), strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def test_alpha_is_in_the_file_or_beside_it(tmp_path):
    file, path = tmp_path / "lora.safetensors", (0, "middle_attention/blocks/self/out/kernel")
    for alpha in (np.array(0.5, np.float32), np.array(3, np.int64)):
        array = {f"{kohya('lora_unet', OUT)}.alpha": alpha}
        found = change(merge_lora(system(), write(file, "kohya", [OUT], **array)))
        update = expected(OUT, alpha / RANK)
        np.testing.assert_allclose(found[path][0], update, rtol=1e-4, atol=1e-5)

    def told(**config):
        arrays = dict(zip(names("peft", OUT), factors(OUT), strict=True))
        save_file(arrays, file, {"lora_adapter_metadata": json.dumps(config)})
        return file

    for part in ("unet.", ""):
        config = {f"{part}lora_alpha": 8, f"{part}use_dora": False, "text_encoder.lora_alpha": 5}
        found = change(merge_lora(system(), told(**config)))
        np.testing.assert_allclose(found[path][0], expected(OUT, 8 / RANK), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"has unet\.use_rslora, which isn't known"):
        merge_lora(system(), told(**{"unet.use_rslora": True}))


def test_convolutions_and_original_names(tmp_path):
    random = np.random.default_rng(0)
    down = random.normal(size=(RANK, 8, 3, 3)).astype(np.float32)
    up = random.normal(size=(8, RANK, 1, 1)).astype(np.float32)
    kernel = np.einsum("rihw,or->hwio", down, up[:, :, 0, 0])
    for layer in ("down_blocks_0_resnets_0_conv2", "input_blocks_1_0_out_layers_3"):
        arrays = {"down": down, "up": up}
        name = f"lora_unet_{layer}.lora_{{}}.weight"
        save_file({name.format(k): v for k, v in arrays.items()}, tmp_path / "lora.safetensors")
        found = change(merge_lora(system(), tmp_path / "lora.safetensors"))
        (path,) = found
        assert path == (0, "down0_block0/conv2/kernel")
        np.testing.assert_allclose(found[path], kernel, rtol=1e-4, atol=1e-5)


def test_second_encoders_have_names_of_their_own(tmp_path):
    random = np.random.default_rng(0)
    shapes = {"down": (RANK, 8), "up": (8, RANK)}
    name = kohya("lora_te2", WORD)
    arrays = {
        f"{name}.lora_{k}.weight": random.normal(size=s).astype(np.float32)
        for k, s in shapes.items()
    }
    save_file(arrays, tmp_path / "lora.safetensors")
    merged, before = merge_lora(system(xl=True), tmp_path / "lora.safetensors"), system(xl=True)
    same(merged.texts[0].params, before.texts[0].params)
    a, b = (flat(s.texts[1].params)["text/blocks/query/kernel"] for s in (merged, before))
    assert np.array_equal(a[0], b[0]) and not np.array_equal(a[1], b[1])


def test_the_dtype_of_the_parameters_stays(tmp_path):
    half = system()
    half = half._replace(
        unet=half.unet._replace(
            params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), half.unet.params)
        )
    )
    merged = merge_lora(half, write(tmp_path / "lora.safetensors", "peft", [OUT]))
    assert {x.dtype for x in jax.tree.leaves(merged.unet.params)} == {np.dtype(jnp.bfloat16)}


def test_everything_that_does_not_fit_is_named_at_once(tmp_path):
    down, up = factors(OUT)
    arrays = {
        "unet.down_blocks.7.to_q.lora_A.weight": down,
        "unet.down_blocks.7.to_q.lora_B.weight": up,
        f"unet.{OUT}.lora_A.weight": down[:, :-1].copy(),
        f"unet.{OUT}.lora_B.weight": up,
        f"unet.{QUERY}.lora_A.weight": factors(QUERY)[0],
        f"unet.{QUERY}.dora_scale": up,
    }
    save_file(arrays, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="can't be merged, in 4 places") as caught:
        merge_lora(system(), tmp_path / "lora.safetensors")
    assert str(caught.value).splitlines()[1:] == [
        f"  unet.{QUERY} has no up;",
        f"  unet.{QUERY}.dora_scale is no factor of a low-rank update that is known here;",
        "  unet.down_blocks.7.to_q has no counterpart here;",
        f"  unet.{OUT} has factors (2, 15) and (16, 2), and the weight is (16, 16).",
    ]
    save_file({}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="it has no layers"):
        merge_lora(system(), tmp_path / "lora.safetensors")


def test_pefts_own_files_have_their_alpha_beside_them(tmp_path):
    path = (0, "middle_attention/blocks/self/out/kernel")
    sides = [f"base_model.model.{OUT}.lora_{side}.weight" for side in "AB"]
    file = tmp_path / "adapter_model.safetensors"
    save_file(dict(zip(sides, factors(OUT), strict=True)), file)
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        merge_lora(system(), file)
    config = {"r": RANK, "lora_alpha": 4, "use_rslora": False, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = change(merge_lora(system(), file))
    np.testing.assert_allclose(found[path][0], expected(OUT, 4 / RANK), rtol=1e-4, atol=1e-5)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    with pytest.raises(ValueError, match="use_rslora"):
        merge_lora(system(), file)
