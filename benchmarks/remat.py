"""What rematerialisation saves and costs: the gradient of a DiT's loss, compiled but not run.

    python benchmarks/remat.py                             # DiT-B/2, batch 32, bfloat16
    python benchmarks/remat.py --name S --batch-size 4     # a try

Memory is what XLA reserves for temporaries (`memory_analysis`), on this machine's device; FLOPs are
counted from shapes. Nothing is allocated.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import tyro

from diffusion_jax.models.dit import Remat, dit
from diffusion_jax.training.flops import count_flops
from diffusion_jax.types import Condition


def main(
    name: Literal["S", "B", "L", "XL"] = "B",
    patch: int = 2,
    batch_size: int = 32,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> None:
    """Prints a table over the choices of `remat`.

    Args:
        name: the DiT's published size.
        patch: height and width of its patches.
        batch_size: pictures of 32x32x4.
        dtype: of the computation.
    """
    shape = (batch_size, 32, 32, 4)
    x, t = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.float32)
    told = Condition(vector=jax.ShapeDtypeStruct((batch_size, 1000), jnp.float32))
    device = jax.devices()[0].device_kind
    print(f"DiT-{name}/{patch}, batch {batch_size}, {dtype}, compiled for {device}\n")
    print("| remat | temporaries, GiB | of none | TFLOPs a gradient | of none |")
    print("|---|---|---|---|---|")
    first: tuple[float, int] | None = None
    choices: tuple[Remat, ...] = ("none", "dots", "full")
    for remat in choices:
        network = dit(name, patch, remat=remat, dtype=jnp.dtype(dtype))

        def loss(params, x, t, told, network=network):
            return jnp.mean(network.apply(params, x, t, told) ** 2)

        params = jax.eval_shape(network.init, jax.random.key(0), x, t, told)
        gradient = jax.grad(loss)
        flops = count_flops(gradient, params, x, t, told)
        analysis = jax.jit(gradient).lower(params, x, t, told).compile().memory_analysis()
        memory = analysis.temp_size_in_bytes / 2**30
        first = first or (memory, flops)
        print(
            f"| `{remat}` | {memory:.2f} | {memory / first[0]:.2f} | {flops / 1e12:.2f} "
            f"| {flops / first[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    tyro.cli(main)
