"""The files beside CLIP's arrays: each field is a sentence where it can't be what it is."""

import json
import math

import jax.numpy as jnp
import pytest

from diffusion_jax.interop import load_clip, save_clip
from diffusion_jax.interop.clip_sizes import shapes_of
from diffusion_jax.interop.layouts import nested
from diffusion_jax.models import CLIP, TextTransformer, VisionTransformer

VISION = VisionTransformer(6, width=128, layers=2, heads=2, patch=4, image_size=8, hidden=48)
TEXT = TextTransformer(6, 11, 7, width=64, layers=3, heads=1, end=10, hidden=256)


def save(folder, clip):
    save_clip(folder, clip, nested({p: jnp.zeros(s) for p, s in shapes_of(clip).items()}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path, CLIP(VISION, TEXT))


def odd(file, name, value):
    """Puts a value into a JSON file; the name may go through its objects by dots."""
    content = json.loads(file.read_text())
    *parents, last = name.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("vision_config.patch_size", [0, "4", None, 4.0, True, [4.0], [[4], [4]], {"height": 4}]),
        ("vision_config.image_size", [0, -8, 100_000, 1_000_000_000, [], "8"]),
        ("vision_config.num_attention_heads", [0, -2, "2", None]),
        ("vision_config.hidden_size", [0, 128.0, True]),
        ("vision_config.num_channels", [0, None, "3"]),
        ("vision_config.intermediate_size", [0, "48", None]),
        ("vision_config.num_hidden_layers", [0, 1_000_000, 2.0]),
        ("vision_config.layer_norm_eps", ["1e-5", math.nan, -1e-5, math.inf, None, True]),
        ("vision_config.hidden_act", [["gelu"], None, {}]),
        ("text_config.vocab_size", ["11", None, 0]),
        ("text_config.max_position_embeddings", [0, "7"]),
        ("text_config.eos_token_id", [True, None, -1, "10", 2.0]),
        ("text_config", [[], "text", 3]),
        ("projection_dim", ["6", None, 0, 6.0]),
    ],
)
def test_a_field_that_no_clip_has_is_named(folder, name, values):
    file, field = folder / "config.json", name.split(".")[-1]
    whole = file.read_text()
    for value in values:
        file.write_text(whole)
        odd(file, name, value)
        with pytest.raises(ValueError, match=rf"{field} is .*in config\.json") as caught:
            load_clip(folder)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["CLIPTextModelWithProjection", 3, [3]])
def test_architectures_are_names(tmp_path, value):
    save(tmp_path, CLIP(None, TEXT))
    odd(tmp_path / "config.json", "architectures", value)
    with pytest.raises(ValueError, match=r"architectures is .* in config\.json; .* list of names"):
        load_clip(tmp_path)


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
@pytest.mark.parametrize("value", [None, 0.5, [0.5, 0.5, math.nan], [0.5, "0.5", 0.5], "0.5"])
def test_pictures_are_normalised_by_lists_of_numbers(folder, name, value):
    odd(folder / "preprocessor_config.json", name, value)
    with pytest.raises(ValueError, match=rf"{name} is .* in preprocessor_config\.json; it must be"):
        load_clip(folder)


def test_pictures_are_not_divided_by_zero(folder):
    odd(folder / "preprocessor_config.json", "image_mean", [0, 0.0, 0])
    load_clip(folder)
    odd(folder / "preprocessor_config.json", "image_std", [0.5, 0, 0.5])
    with pytest.raises(ValueError, match=r"image_std is \[0\.5, 0, 0\.5\] .* numbers above 0"):
        load_clip(folder)


def test_shapes_cost_no_pictures():
    """One of this size would take 3 TiB."""
    shapes = shapes_of(CLIP(VISION.clone(image_size=2**19, patch=2**18), None))
    assert shapes["image/places"] == (5, 128)


def test_only_the_first_of_many_that_do_not_fit_are_named(folder):
    odd(folder / "config.json", "vision_config.num_hidden_layers", 4096)
    with pytest.raises(ValueError, match="doesn't fit, in 65504 arrays") as caught:
        load_clip(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 10 and lines[-1] == "  and 65496 more."
