"""The parameters of diffusers' `DiTTransformer2DModel` as those of our `DiT`.

Its blocks each have an embedding of time and label, which are one in the paper and in the released
weights: `one_embedding` makes them one. Its positions are a buffer, ours a parameter that starts
the same way. Its label embedding [classes + 1, width] is our dense layer of a one-hot vector, whose
bias it lacks. Its time features are [cos, sin], ours [sin, cos].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

BLOCK = {
    "norm1.linear": ("modulation",),
    "attn1.to_q": ("self", "query"),
    "attn1.to_k": ("self", "key"),
    "attn1.to_v": ("self", "value"),
    "attn1.to_out.0": ("self", "out"),
    "ff.net.0.proj": ("mlp1",),
    "ff.net.2": ("mlp2",),
}
OUTSIDE = {
    "proj_out_1": ("final",),
    "proj_out_2": ("answer",),
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1": ("time1",),
    "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2": ("time2",),
}
PATCHES = "pos_embed.proj"
POSITIONS = "pos_embed.pos_embed"
LABELS = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"


def settings(network: Any, in_channels: int, classes: int) -> dict[str, Any]:
    """Arguments of `DiTTransformer2DModel` that make it this `DiT`."""
    return {
        "num_attention_heads": network.heads,
        "attention_head_dim": network.width // network.heads,
        "in_channels": in_channels,
        "out_channels": network.out_channels,
        "num_layers": network.depth,
        "sample_size": network.size,
        "patch_size": network.patch,
        "num_embeds_ada_norm": classes,
        "norm_eps": 1e-6,
    }


def one_embedding(peer: Any) -> Any:
    """The peer, whose blocks share the first one's embedding of time and label."""
    first, *others = peer.transformer_blocks
    for block in others:
        block.norm1.emb = first.norm1.emb
    return peer


def state_of(peer: Any) -> dict[str, np.ndarray]:
    """Name -> array of what `one_embedding` gave, each shared one once, positions too."""
    found = {name: p.detach().cpu().numpy().copy() for name, p in peer.named_parameters()}
    return found | {POSITIONS: peer.pos_embed.pos_embed.detach().cpu().numpy()}


def from_diffusers(state: Mapping[str, np.ndarray], like: Any, depth: int) -> dict:
    """Our parameters, from theirs: each of them used once, each of ours given once.

    Args:
        state: of `state_of`; its gradients will do too, with zeros for the positions.
        like: our tree, nested dicts of anything with a shape.
        depth: blocks.

    Raises:
        ValueError: a name or a shape has no counterpart.
    """
    left = dict(state)
    tree: dict = {}

    def put(path: tuple[str, ...], value: np.ndarray) -> None:
        node, wanted = tree, like
        for name in path[:-1]:
            node, wanted = node.setdefault(name, {}), wanted[name]
        if value.shape != tuple(wanted[path[-1]].shape):
            raise ValueError(f"{path} is {wanted[path[-1]].shape}, and diffusers' {value.shape}.")
        node[path[-1]] = value

    def layer(name: str) -> dict[str, np.ndarray]:
        return {"kernel": left.pop(f"{name}.weight").T, "bias": left.pop(f"{name}.bias")}

    try:
        kernel = left.pop(f"{PATCHES}.weight").transpose(2, 3, 1, 0)
        put(("patches", "kernel"), kernel.reshape(-1, kernel.shape[-1]))
        put(("patches", "bias"), left.pop(f"{PATCHES}.bias"))
        put(("positions",), left.pop(POSITIONS)[0])
        labels = left.pop(LABELS)
        put(("vector", "kernel"), labels)
        put(("vector", "bias"), np.zeros(labels.shape[-1:], np.float32))
        for name, path in OUTSIDE.items():
            for leaf, value in layer(name).items():
                if path == ("time1",) and leaf == "kernel":
                    value = np.roll(value, value.shape[0] // 2, axis=0)
                put((*path, leaf), value)
        for name, path in BLOCK.items():
            layers = [layer(f"transformer_blocks.{i}.{name}") for i in range(depth)]
            for leaf in ("kernel", "bias"):
                put(("blocks", *path, leaf), np.stack([one[leaf] for one in layers]))
    except KeyError as error:
        raise ValueError(f"there is no {error} on the other side.") from None
    if left:
        raise ValueError(f"diffusers' {', '.join(left)} have no counterpart here.")
    return tree
