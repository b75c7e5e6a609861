"""Equal blocks under one scan: compiled once, gathered and rematerialised layer by layer."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax

from diffusion_jax.models.cuts import gathered

EACH, SHARED = 0, nn.broadcast  # an input [depth, ...] of which a block reads its own; one of all

Remat = Literal["none", "dots", "full"]
_POLICIES: dict[str, Callable[..., Any]] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def stacked(
    block: type[nn.Module],
    depth: int,
    remat: Remat,
    *,
    initializing: bool,
    inputs: Any = SHARED,
) -> Any:
    """The class of `depth` blocks, one after another, over stacked parameters [depth, ...].

    Its modules want the name `cuts.STACK`, by which meshes know them.

    Args:
        block: called as block(carry, *inputs) -> (carry, what is stacked [depth, ...], or None).
        depth: how many.
        remat: what the gradient computes again instead of keeping: "none", all but the matrix
            products ("dots"), or everything inside a block ("full").
        initializing: the caller's `is_initializing()`: there is nothing to gather yet.
        inputs: of each input, or of all of them, `EACH` or `SHARED`.
    """
    body: Any = block
    if remat != "none":
        body = nn.remat(block, policy=_POLICIES[remat], prevent_cse=False)
    if not initializing:
        body = nn.map_variables(body, "params", trans_in_fn=gathered)
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=inputs,
        length=depth,
    )
