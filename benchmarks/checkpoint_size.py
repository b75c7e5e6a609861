"""How large a Stable Diffusion folder is here: parameters, memory while loading, and while drawing.

    python benchmarks/random_checkpoint.py runs/random_sd15 --size sd15
    python benchmarks/checkpoint_size.py runs/random_sd15

Published for 1.5: 859.5 M in the U-Net, 83.7 M in the autoencoder, 123.1 M in the text encoder.
"""

import time
from pathlib import Path

import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from clip_speed import memory  # noqa: E402

from diffusion_jax.interop import load_stable_diffusion  # noqa: E402
from diffusion_jax.interop.sd_system import (  # noqa: E402
    load_tokenizers,
    system_of,
    tokens_of,
    told_of,
    zeros_for_nothing,
)
from diffusion_jax.systems.latent import LatentDiffusion  # noqa: E402
from diffusion_jax.training.sharding import tree_bytes  # noqa: E402


def main(
    folder: tyro.conf.Positional[Path],
    size: tuple[int, int] = (512, 512),
    steps: int = 2,
    bfloat16: bool = False,
) -> None:
    """Prints what it finds.

    Args:
        folder: of a pipeline.
        size: height and width of the picture.
        steps: of the checkpoint's sampler.
        bfloat16: compute, and keep parameters, in bfloat16.
    """
    jnp.zeros(1).block_until_ready()  # JAX itself isn't counted
    before, dtype = memory("VmRSS"), jnp.bfloat16 if bfloat16 else jnp.float32
    began = time.perf_counter()
    parts = load_stable_diffusion(folder, dtype=dtype, parameters=dtype)
    networks = {"U-Net": parts.unet, "autoencoder": parts.codec}
    networks |= {f"text encoder {i + 1}": part for i, part in enumerate(parts.texts)}
    for name, part in networks.items():
        print(f"{name}: {sum(x.size for x in jax.tree.leaves(part.params)) / 1e6:.1f} M parameters")
    weights = sum(tree_bytes(part.params) for part in networks.values())
    loading, seconds = memory("VmHWM") - before, time.perf_counter() - began
    print(
        f"weights of {weights / 1e9:.2f} GB, loaded in {seconds:.0f} s with {loading / 1e9:.2f} GB "
        f"of memory at most, {loading / weights:.2f} times as much"
    )
    prompted = tokens_of(load_tokenizers(folder, parts), ["a red bicycle"], [""])
    ids = ([jnp.asarray(one.ids) for one in some] for some in prompted)
    known = told_of(parts, *ids, size, zeros=zeros_for_nothing(parts))
    system = system_of(parts, size, steps=steps)
    began = time.perf_counter()
    arguments = system, jax.random.key(0), known, jnp.arange(1)
    program = jax.jit(LatentDiffusion.sample).lower(*arguments).compile()
    compiled = time.perf_counter() - began
    began = time.perf_counter()
    picture = program(*arguments)
    finite = bool(jnp.isfinite(picture).all())
    seconds, most = time.perf_counter() - began, memory("VmHWM") / 1e9
    print(
        f"{steps} steps at {size[0]}x{size[1]} in {seconds:.0f} s, compiled in {compiled:.0f} s; a "
        f"finite picture: {finite}; the process held {most:.2f} GB at most"
    )


if __name__ == "__main__":
    tyro.cli(main)
