"""LPIPS by file: a small VGG in the package's names, read back and compared with equation (1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.interop.lpips import load_lpips, lpips_judge
from diffusion_jax.losses.autoencoding import perceptual_distance
from diffusion_jax.models.vgg import MEAN, STD, VGG16

SMALL = VGG16((3, 4, 5, 6, 7))
# the package's own, version 0.1
CONVOLUTIONS = ["1.0", "1.2", "2.5", "2.7", "3.10", "3.12", "3.14"]
CONVOLUTIONS += ["4.17", "4.19", "4.21", "5.24", "5.26", "5.28"]


def test_names_and_constants_are_the_packages():
    named = [name for name in arrays() if name.startswith("net.") and name.endswith(".weight")]
    assert named == [f"net.slice{place}.weight" for place in CONVOLUTIONS]
    np.testing.assert_allclose(MEAN, [-0.030, -0.088, -0.188])
    np.testing.assert_allclose(STD, [0.458, 0.448, 0.450])


def arrays(layout: str = "lpips", listed: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found, number, channels = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)}, 0, 3
    for i, (width, depth) in enumerate(zip(SMALL.widths, SMALL.depths, strict=True)):
        for _ in range(depth):
            name = f"features.{number}" if layout == "torchvision" else f"net.slice{i + 1}.{number}"
            kernel = rng.normal(size=(width, channels, 3, 3)) / (9 * channels) ** 0.5
            found[f"{name}.weight"] = kernel.astype(np.float32)
            found[f"{name}.bias"] = rng.normal(size=width).astype(np.float32) / 10
            number, channels = number + 2, width
        number += 1
        lin = f"lins.{i}.model.1.weight" if listed else f"lin{i}.model.1.weight"
        found[lin] = rng.uniform(size=(1, width, 1, 1)).astype(np.float32)
    return found


def written(path, tensors):
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


@pytest.mark.parametrize("layout", ["lpips", "torchvision"])
@pytest.mark.parametrize("listed", [False, True])
def test_each_layout_is_read(tmp_path, layout, listed):
    tensors = arrays(layout, listed)
    params = load_lpips(written(tmp_path / "a.safetensors", tensors), SMALL)
    first = "features.0.weight" if layout == "torchvision" else "net.slice1.0.weight"
    kernel = params["vgg"]["stage0_conv0"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors[first].transpose(2, 3, 1, 0))
    assert params["channels"]["stage4"].shape == (7,)


def test_a_judge_of_a_file(tmp_path):
    judge = lpips_judge(written(tmp_path / "a.safetensors", arrays()), 1.0, SMALL)
    params = judge.params()
    x, y = (jax.random.uniform(jax.random.key(i), (2, 32, 32, 3), minval=-1) for i in (0, 1))
    a, b = judge.maps(params, x), judge.maps(params, y)
    assert [f.shape[1] for f in a] == [32, 16, 8, 4, 2]
    found = perceptual_distance(a, b, judge.channel_weights(params))
    expected = np.zeros(2)
    for i, (f, g) in enumerate(zip(a, b, strict=True)):
        f, g = (np.asarray(v, np.float64) for v in (f, g))
        f, g = (v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-10) for v in (f, g))
        w = np.asarray(params["channels"][f"stage{i}"])
        expected += ((f - g) ** 2 * w).sum(-1).mean((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert (found > 0.01).all()
    np.testing.assert_array_equal(perceptual_distance(a, a), jnp.zeros(2))


def test_files_that_do_not_fit(tmp_path):
    tensors = arrays()
    del tensors["lin3.model.1.weight"]
    path = written(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ValueError, match=r"lin3\.model\.1\.weight is missing"):
        load_lpips(path, SMALL)
    with pytest.raises(ValueError, match="has shape"):
        load_lpips(written(tmp_path / "b.safetensors", arrays()))
    with pytest.raises(FileNotFoundError):
        load_lpips(tmp_path / "none.safetensors")
