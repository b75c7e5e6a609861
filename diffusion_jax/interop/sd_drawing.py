"""Pictures from a Stable Diffusion checkpoint, batch by batch, over all devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffusion_jax.models.conditioning import Known
from diffusion_jax.systems.latent import LatentDiffusion, shrunk_mask
from diffusion_jax.training.ahead import abstract, compiled, topology_devices
from diffusion_jax.training.ahead_report import program
from diffusion_jax.training.chips import chip_of
from diffusion_jax.training.distributed import to_host
from diffusion_jax.training.drawing import in_batches
from diffusion_jax.training.sharding import (
    batch_parts,
    batched,
    check_divides,
    make_mesh,
    replicated,
    spread,
    tree_bytes,
    under,
)

Run = Callable[[Any, Any, Known, Any], jax.Array]  # of a system, key, known, index


def draw_checkpoint(
    run: Run,
    system: LatentDiffusion,
    known: Known,
    count: int,
    *,
    seed: int,
    seeds: Sequence[int] = (),
    batch_size: int,
    mesh: Mesh,
) -> np.ndarray:
    """The pictures [n h w c], with a progress bar; picture i is told row i of what is known.

    Args:
        run: such as `LatentDiffusion.sample`.
        system: copied to every device, beside a part of each batch.
        known: arrays [rows ...]; where there are fewer rows than pictures, in turn.
        count: n.
        seed: of picture i together with i.
        seeds: one for each picture, which is then picture 0 of it.
        batch_size: pictures at a time, over all devices.
        mesh: the devices.
    """
    system = jax.device_put(system, replicated(mesh))
    jitted = _program(run, mesh, bool(seeds))

    def some(index: jax.Array) -> np.ndarray:
        numbers = np.asarray(index)
        told = {name: np.asarray(x)[numbers % len(x)] for name, x in known.items()}
        key = jax.random.key(seed)
        if seeds:
            chosen = np.take(np.asarray(seeds, np.uint32), numbers, mode="clip")
            key, numbers = jax.vmap(jax.random.key)(chosen), np.zeros_like(numbers)
        return to_host(jitted(system, key, *spread((told, numbers), mesh)))

    return in_batches(some, count, batch_size)


def compile_checkpoint(
    topology: str, run: Run, system: LatentDiffusion, known: Known, batch_size: int
) -> str:
    """What a TPU's compiler says of the program that draws a batch, without the TPU.

    Args:
        topology: such as "v5e:2x2".
        run, system, known, batch_size: as of `draw_checkpoint`.

    Raises:
        ValueError: there is no such topology, or the batch doesn't divide among its chips.
        ModuleNotFoundError: libtpu isn't installed.
    """
    chip = chip_of(topology)
    mesh = make_mesh(devices=topology_devices(topology))
    check_divides(batch_size, batch_parts(mesh), what="--batch-size")
    whole, cut = replicated(mesh), batched(mesh)
    leaves, tree = jax.tree.flatten(system)

    def flat_run(leaves: Any, key: Any, known: Known, index: Any) -> jax.Array:
        return run(jax.tree.unflatten(tree, leaves), key, known, index)

    batch = {name: np.asarray(x)[np.zeros(batch_size, int)] for name, x in known.items()}
    index = np.zeros(batch_size, np.int32)
    drawn = compiled(
        _program(flat_run, mesh, False),
        abstract(leaves, whole),
        abstract(jax.random.key(0), whole),
        *abstract((batch, index), cut),
    )
    size = tree_bytes(abstract(leaves))  # some are plain numbers
    heading = (
        f"compiled for {topology}: {mesh.size} chips, each with {size / 1e9:.3g} GB of weights"
    )
    return f"{heading}\n{program('drawing', drawn, chip, mesh, batch_size)}"


@functools.lru_cache(maxsize=8)
def _program(run: Run, mesh: Mesh, keyed: bool) -> Callable[..., jax.Array]:
    """The jitted run of a batch, which has a key for each picture, or one for all."""
    whole, cut = replicated(mesh), batched(mesh)

    def each(system: LatentDiffusion, keys: Any, known: Known, index: Any) -> jax.Array:
        def one(key: Any, told: Known, i: Any) -> jax.Array:
            return run(system, key, {name: x[None] for name, x in told.items()}, i[None])[0]

        return jax.vmap(one)(keys, known, index)

    inside, key = (each, cut) if keyed else (run, whole)
    return jax.jit(under(mesh, inside), in_shardings=(whole, key, cut, cut), out_shardings=cut)


def inpainted(
    system: LatentDiffusion, key: Any, known: Known, index: Any, *, reads_image: bool
) -> jax.Array:
    """By a U-Net that is told of the hole, or by replacing what is known at each step."""
    texts = {name: value for name, value in known.items() if name not in ("picture", "kept")}
    picture, kept = jnp.asarray(known["picture"]), jnp.asarray(known["kept"])
    if not reads_image:
        return system.inpaint(key, picture, kept, texts, index)
    masked = system.codec.encode(jnp.where(kept == 1, picture, 0.0))
    hole = 1.0 - shrunk_mask(kept, (masked.shape[1], masked.shape[2]))
    texts = {**texts, "image": jnp.concatenate([hole, masked], axis=-1)}
    return jnp.where(kept == 1, picture, system.sample(key, texts, index))


def changed(system: LatentDiffusion, key: Any, known: Known, index: Any) -> jax.Array:
    """From a picture with noise on."""
    texts = {name: value for name, value in known.items() if name != "picture"}
    return system.image_to_image(key, jnp.asarray(known["picture"]), texts, index)
