"""The parameters of diffusers' `UNet2DModel` as those of our `UNet`, by one table of names.

diffusers convolves NCHW with kernels [out, in, h, w], and multiplies by matrices [out, in];
ours are [h, w, in, out] and [in, out]. It counts the blocks of the way up from the smallest
pictures, we from the largest. Its class embedding [classes, e] is the kernel of our dense
layer for a one-hot `condition.vector`, whose bias it lacks.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

# Ours is `{i}` for the level, 0 the largest pictures; diffusers' way up counts `{k}` = last - i.
PLACES = {
    "conv_in": "conv_in",
    "time_embedding.linear_1": "time1",
    "time_embedding.linear_2": "time2",
    "class_embedding": "vector",
    "down_blocks.{i}.resnets.{j}": "down{i}_block{j}",
    "down_blocks.{i}.attentions.{j}": "down{i}_attention{j}_self",
    "down_blocks.{i}.downsamplers.0": "down{i}_resize",
    "mid_block.resnets.{j}": "middle_block{j}",
    "mid_block.attentions.0": "middle_attention_self",
    "up_blocks.{k}.resnets.{j}": "up{i}_block{j}",
    "up_blocks.{k}.attentions.{j}": "up{i}_attention{j}_self",
    "up_blocks.{k}.upsamplers.0.conv": "up{i}_resize",
    "up_blocks.{k}.upsamplers.0": "up{i}_resize",
    "conv_norm_out": "norm_out",
    "conv_out": "conv_out",
}
LAYERS = {
    # residual block
    "norm1": "norm1",
    "conv1": "conv1",
    "time_emb_proj": "embed",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "skip",
    # attention
    "group_norm": "norm",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "out",
    # strided convolution
    "conv": "conv",
}
# What diffusers has no parameter for. Zero is the same function.
ABSENT = ("vector", "bias")

Path = tuple[str, ...]


def modules(levels: int, blocks: int) -> dict[str, Path]:
    """Every module name that diffusers may have, with the path of ours."""
    table: dict[str, Path] = {}
    for i, j in product(range(levels), range(max(2, blocks + 1))):
        for theirs, ours in PLACES.items():
            name = theirs.format(i=i, j=j, k=levels - 1 - i)
            path = (ours.format(i=i, j=j),)
            table[name] = path
            table |= {f"{name}.{layer}": (*path, our) for layer, our in LAYERS.items()}
        # Its upsampler's only layer is a convolution, and ours is one itself.
        table[f"up_blocks.{levels - 1 - i}.upsamplers.0.conv"] = (f"up{i}_resize",)
    return table


def from_diffusers(
    state: Mapping[str, np.ndarray],
    like: Any,
    *,
    levels: int,
    blocks: int,
    cosine_first: bool = False,
) -> dict:
    """Our parameters, from theirs: each of them used once, each of ours given once.

    Args:
        state: name -> array, of parameters or of their gradients.
        like: our tree, nested dicts of anything with a shape; `jax.eval_shape` of init gives it.
        levels: len(multipliers) of the network.
        blocks: residual blocks a level.
        cosine_first: diffusers' `flip_sin_to_cos`: its time features are [cos, sin], ours
            [sin, cos], so the rows of the first dense layer change places.

    Raises:
        ValueError: a name or a shape has no counterpart.
    """
    table = modules(levels, blocks)
    want = _flatten(like)
    found: dict[Path, np.ndarray] = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if module not in table:
            raise ValueError(f"diffusers' {name} has no counterpart here.")
        path, value = _leaf(module, leaf, np.asarray(value))
        path = table[module] + path
        if path[0] == "time1" and path[-1] == "kernel" and cosine_first:
            value = np.roll(value, value.shape[0] // 2, axis=0)
        if path not in want:
            raise ValueError(f"diffusers' {name} became {'/'.join(path)}, which isn't ours.")
        if path in found:
            raise ValueError(f"two of diffusers' parameters became {'/'.join(path)}.")
        if value.shape != tuple(want[path].shape):
            raise ValueError(
                f"{'/'.join(path)} is {tuple(want[path].shape)}, and diffusers' {name} makes "
                f"it {value.shape}."
            )
        found[path] = value
    if ABSENT in want:
        found[ABSENT] = np.zeros(want[ABSENT].shape, np.float32)
    missing = sorted("/".join(path) for path in want.keys() - found.keys())
    if missing:
        raise ValueError(f"diffusers gives nothing for {missing}.")
    return _unflatten(found)


def _leaf(module: str, leaf: str, value: np.ndarray) -> tuple[Path, np.ndarray]:
    """The name and layout that we give to a module's `weight` or `bias`."""
    if leaf == "bias":
        return ("bias",), value
    if value.ndim == 1:
        return ("scale",), value
    if module == "class_embedding":
        return ("kernel",), value
    if module.endswith("conv_shortcut"):  # 1x1: a dense layer
        value = value[:, :, 0, 0]
    return ("kernel",), value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)


def _flatten(tree: Any, path: Path = ()) -> dict[Path, Any]:
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {k: v for name, part in tree.items() for k, v in _flatten(part, (*path, name)).items()}


def _unflatten(flat: Mapping[Path, np.ndarray]) -> dict:
    tree: dict = {}
    for path, value in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return tree
