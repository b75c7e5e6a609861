"""LPIPS' features and distances against the same convolutions in PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from diffusion_jax.interop.lpips import load_lpips
from diffusion_jax.losses.autoencoding import perceptual_distance
from diffusion_jax.models.vgg import MEAN, STD, VGG16

SMALL = VGG16((3, 4, 5, 6, 7))


def torch_vgg() -> tuple[nn.Sequential, list[int]]:
    """VGG-16's `features`, of these widths, and the numbers of the ReLUs before each pooling."""
    layers, taps, channels = [], [], 3
    for i, (width, depth) in enumerate(zip(SMALL.widths, SMALL.depths, strict=True)):
        layers += [nn.MaxPool2d(2, 2)] * bool(i)
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps.append(len(layers) - 1)
    return nn.Sequential(*layers), taps


@pytest.mark.parametrize("size", [(32, 32), (40, 24)])
def test_features_and_distance(tmp_path, size):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network, taps = torch_vgg()
    state = {f"features.{name}": value for name, value in network.state_dict().items()}
    lins = [torch.rand(1, width, 1, 1) for width in SMALL.widths]
    state |= {f"lin{i}.model.1.weight": lin for i, lin in enumerate(lins)}
    save_file(state, tmp_path / "lpips.safetensors")
    params = load_lpips(tmp_path / "lpips.safetensors", SMALL)

    x, y = (torch.rand(2, 3, *size) * 2 - 1 for _ in range(2))
    ours = [
        SMALL.apply({"params": params["vgg"]}, jnp.asarray(v.permute(0, 2, 3, 1).numpy()))
        for v in (x, y)
    ]
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    total = torch.zeros(2)
    a, b = (x - mean) / std, (y - mean) / std
    with torch.no_grad():
        for number, layer in enumerate(network):
            a, b = layer(a), layer(b)
            if number in taps:
                stage = taps.index(number)
                for theirs, found in ((a, ours[0][stage]), (b, ours[1][stage])):
                    np.testing.assert_allclose(found, theirs.permute(0, 2, 3, 1), atol=1e-5)
                near, far = (v / (v.norm(dim=1, keepdim=True) + 1e-10) for v in (a, b))
                total += ((near - far) ** 2 * lins[stage]).sum(1).mean((1, 2))
    weights = [params["channels"][f"stage{i}"] for i in range(5)]
    np.testing.assert_allclose(perceptual_distance(*ours, weights), total, rtol=1e-3)
