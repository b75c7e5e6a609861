"""LPIPS by file: VGG-16's convolutions and the weights of its channels, as a judge of pictures.

The arrays have the names of the `lpips` package's VGG ("net.slice1.0.weight", "lin0.model.1.weight"
or "lins.0.model.1.weight"); the convolutions may have torchvision's ("features.0.weight") instead.
Several files can be one folder with an index, or be merged into one file.

Source: Zhang et al. 2018 (arXiv:1801.03924), equation (1), "lin".
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.interop.layouts import CONVOLUTION, Form, Row, flat, from_theirs, linear
from diffusion_jax.interop.safetensors import Tensors, open_tensors
from diffusion_jax.models.vgg import VGG16
from diffusion_jax.training.picture_codecs import Judge
from diffusion_jax.types import Params

_CHANNELS = Form(lambda x: x[None, :, None, None], lambda x: x[0, :, 0, 0])  # a 1x1 convolution's


def lpips_judge(path: Path, weight: float = 1.0, network: VGG16 | None = None) -> Judge:
    """LPIPS of a safetensors file as a judge; it is read when training begins.

    Args:
        path: of the file, or of a folder.
        weight: of the perceptual distance.
        network: VGG-16 by default.

    Raises:
        ValueError, FileNotFoundError: then, as `load_lpips`.
    """
    network = network or VGG16()

    @functools.cache
    def read() -> Params:
        with jax.ensure_compile_time_eval():  # it's asked for while the first state is traced
            return load_lpips(path, network)

    def maps(params: Params, pictures: Array) -> tuple[Array, ...]:
        found: Any = network.apply({"params": params["vgg"]}, pictures)
        return found

    def channels(params: Params) -> tuple[Array, ...]:
        return tuple(params["channels"][f"stage{i}"] for i in range(len(network.widths)))

    return Judge(maps, read, weight, channels)


def load_lpips(path: Path, network: VGG16 | None = None) -> Params:
    """{"vgg": the network's parameters, "channels": {"stage0": [c], ...}} of a file.

    Raises:
        ValueError: a pickle, a file that is cut short, or arrays that don't fit, which are named.
        FileNotFoundError: no such file.
    """
    network = network or VGG16()
    blank = jnp.zeros((1, 16, 16, 3))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), blank))["params"]
    ours = {f"vgg/{path}": leaf.shape for path, leaf in flat(params).items()}
    ours |= {f"channels/stage{i}": (width,) for i, width in enumerate(network.widths)}
    with open_tensors(path) as tensors:
        return from_theirs(tensors, _rows(network, tensors), ours, lambda name: not _named(name))


def _named(name: str) -> bool:
    """Whether an array would be a convolution or the weights of channels."""
    return name.startswith(("net.slice", "lin0", "lin1", "lin2", "lin3", "lin4"))


def _rows(network: VGG16, tensors: Tensors) -> list[Row]:
    torchvision = "features.0.weight" in tensors.shapes
    listed = "lin0.model.1.weight" not in tensors.shapes and any(
        name.startswith("lins.") for name in tensors.shapes
    )
    rows, number = [], 0
    for i, depth in enumerate(network.depths):
        for j in range(depth):
            name = f"features.{number}" if torchvision else f"net.slice{i + 1}.{number}"
            rows += linear(name, f"vgg/stage{i}_conv{j}", form=CONVOLUTION)
            number += 2  # a ReLU lies between
        number += 1  # and a maximum between stages
        lin = f"lins.{i}.model.1.weight" if listed else f"lin{i}.model.1.weight"
        rows.append(Row(lin, (f"channels/stage{i}",), _CHANNELS))
    return rows
