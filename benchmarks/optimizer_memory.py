"""Bytes that each optimizer keeps for a DiT, counted from shapes:

python benchmarks/optimizer_memory.py --name B --patch 2
"""

from typing import Literal

import jax
import jax.numpy as jnp
import tyro

from diffusion_jax.models.dit import dit
from diffusion_jax.training.optimizers import adafactor, adam, adam_bfloat16, adamw
from diffusion_jax.training.sharding import tree_bytes
from diffusion_jax.types import Condition


def main(name: Literal["S", "B", "L", "XL"] = "B", patch: int = 2) -> None:
    """Prints a table of the parameters and of each optimizer's state.

    Args:
        name: the DiT's published size.
        patch: height and width of its patches.
    """
    network, told = dit(name, patch), Condition(vector=jnp.zeros((1, 1000)))
    params = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), told)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"DiT-{name}/{patch}, {count:,} parameters, {tree_bytes(params) / 2**20:.0f} MiB\n")
    print("| optimizer | state, MiB | bytes a parameter |")
    print("|---|---|---|")
    for optimizer in (adam, adamw, adam_bfloat16, adafactor):
        kept = tree_bytes(jax.eval_shape(optimizer(1e-4).init, params))
        print(f"| `{optimizer.__name__}` | {kept / 2**20:.0f} | {kept / count:.2f} |")


if __name__ == "__main__":
    tyro.cli(main)
