"""Run by test_devices.py in a process with eight simulated devices; prints JSON."""

import dataclasses
import hashlib
import json
import math
import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

from diffusion_jax.data import batches, put_on_device
from diffusion_jax.models import cuts, digits_unet, from_linen, with_time
from diffusion_jax.models.dit import DiT
from diffusion_jax.random import example_keys, normal
from diffusion_jax.samplers import DDIM
from diffusion_jax.training import checkpoints
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.loop import first_state, planned
from diffusion_jax.training.sampling import cycle_labels, sample_batches
from diffusion_jax.training.saver import Saver
from diffusion_jax.training.sharding import (
    MeshOptions,
    batched,
    bytes_a_device,
    data_mesh,
    replicated,
    shardings_of,
    tree_bytes,
)
from diffusion_jax.training.step import make_step
from tests.training import toy

experiment = toy.recipe(batch_size=16)
MESHES = [(1, 1, 1), (2, 1, 1), (4, 1, 1), (8, 1, 1), (4, 2, 1), (2, 2, 2), (1, 8, 1)]
STEPS = 20
transformer = DiT(out_channels=1, size=4, patch=2, width=32, depth=2, heads=2, remat="dots")


def noised(params):
    """Parameters that make every layer matter: nothing is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


def seventeenth(params, num: int, batch_size: int, devices: int) -> np.ndarray:
    labels = cycle_labels(experiment, num)
    pictures = sample_batches(
        experiment, params, DDIM(1.0), {"label": labels},
        steps=4, guidance=2.0, seed=0, batch_size=batch_size, mesh=data_mesh(devices),
    )  # fmt: skip
    return np.concatenate(list(pictures))[17]


def noise(devices: int) -> np.ndarray:
    cut = batched(data_mesh(devices))
    draw = jax.jit(
        lambda key, index: normal(example_keys(key, index), (4, 4, 1)),
        in_shardings=(replicated(data_mesh(devices)), cut),
        out_shardings=cut,
    )
    return np.asarray(draw(jax.random.key(0), np.arange(64)))


def recipe_of(network: nn.Module) -> Experiment:
    """A network with attention and norms on the toy's pictures.

    By plain gradients: Adam makes whole steps of gradients that are zero but for rounding, which
    a key's bias has, and parts two meshes' losses ten times as fast (docs/pods.md).
    """
    small = toy.recipe(batch_size=16, learning_rate=0.1)
    model = with_time(from_linen(network), lambda t: 1000.0 * t)
    return dataclasses.replace(small, model=model, optimizer=optax.sgd)


def trained(recipe: Experiment, data: int, fsdp: int, tensor: int) -> dict:
    """Twenty steps on a mesh: losses, what the batches held, and how much a device holds."""
    optimizer = recipe.optimizer(recipe.learning_rate)
    options = MeshOptions(data * fsdp * tensor, data, fsdp, tensor)
    mesh, like = planned(recipe, optimizer, options)
    step = make_step(recipe.loss(), optimizer, like)
    state = jax.jit(
        lambda key: first_state(recipe, optimizer, key), out_shardings=shardings_of(like)
    )(jax.random.key(0))
    host = batches(recipe.source("train", None), recipe.batch_size, seed=0, threads=0)
    seen, losses = hashlib.sha256(), []
    stream = put_on_device(host, batched(mesh))
    for _ in range(STEPS):
        batch = next(stream)
        seen.update(np.asarray(batch.arrays["image"]).tobytes())
        state, metrics = step(state, jax.random.key(0), batch.arrays)
        losses.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    stream.close()
    return {
        "losses": losses,
        "batches": seen.hexdigest(),
        "compiled": step._cache_size(),
        "share": bytes_a_device(like) / tree_bytes(like),
    }


def restored_elsewhere() -> list[bool]:
    """Whether a checkpoint of eight devices is equal in every bit on 1, 2, and 2x4 of them."""
    recipe = recipe_of(transformer)
    optimizer = recipe.optimizer(recipe.learning_rate)

    def like(*mesh: int):
        options = MeshOptions(math.prod(mesh), *mesh)
        return planned(recipe, optimizer, options)[1]

    start = jax.jit(
        lambda key: first_state(recipe, optimizer, key), out_shardings=shardings_of(like(2, 2, 2))
    )
    state = start(jax.random.key(0))
    bits = [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]
    equal = []
    with tempfile.TemporaryDirectory() as folder:
        with Saver(Path(folder)) as saver:
            saver.save(1, state, {})
        for mesh in ((1, 1, 1), (2, 1, 1), (2, 4, 1), (1, 2, 4)):
            wanted = like(*mesh)
            found = checkpoints.restore_latest(Path(folder), wanted).state
            lies = jax.tree.leaves(shardings_of(found)) == jax.tree.leaves(shardings_of(wanted))
            same = [np.asarray(x).tobytes() for x in jax.tree.leaves(found)] == bits
            equal.append(lies and same)
    return equal


def main() -> None:
    assert len(jax.devices()) == 8
    cuts.LEAST = 256  # so that a small network is cut too
    params = jax.device_get(noised(jax.jit(experiment.init_params)(jax.random.key(0))))
    base = seventeenth(params, 64, 64, 1)
    few, alone = seventeenth(params, 18, 64, 1), seventeenth(params, 18, 1, 1)
    apart = {d: np.abs(base - seventeenth(params, 64, 64, d)).max() for d in (2, 4, 8)}
    lone = normal(example_keys(jax.random.key(0), jax.numpy.array([17])), (4, 4, 1))[0]
    report = {
        "num_identical": np.array_equal(base, few),
        "not_clipped": float((np.abs(base) < 1).mean()),
        "batch_1": float(np.abs(base - alone).max()),
        "devices": {str(d): float(x) for d, x in apart.items()},
        "noise_identical": all(np.array_equal(noise(1), noise(d)) for d in (2, 4, 8)),
        "alone_noise_identical": np.array_equal(noise(1)[17], lone),
        "restored": restored_elsewhere(),
        "trained": [trained(toy.recipe(batch_size=16, features=32), *mesh) for mesh in MESHES],
        "unet": [trained(recipe_of(digits_unet()), *mesh) for mesh in ((1, 1, 1), (2, 2, 2))],
        "dit": [trained(recipe_of(transformer), *mesh) for mesh in ((1, 1, 1), (2, 2, 2))],
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
