"""Run by test_devices.py in a process with eight simulated devices; prints JSON."""

import json
import sys

import jax
import numpy as np

from diffusion_jax.random import example_keys, normal
from diffusion_jax.samplers import DDIM
from diffusion_jax.training.sampling import cycle_labels, sample_batches
from diffusion_jax.training.sharding import batched, data_mesh, replicated
from diffusion_jax.training.step import init_state, make_step
from tests.training import toy

experiment = toy.recipe(batch_size=16)


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


def trained(params, devices: int):
    mesh = data_mesh(devices)
    optimizer = experiment.optimizer(experiment.learning_rate)
    step = make_step(experiment.loss(), optimizer, mesh)
    state = jax.device_put(init_state(params, optimizer), replicated(mesh))
    state, metrics = step(state, jax.random.key(0), jax.device_put(toy.batch(16), batched(mesh)))
    return float(metrics["loss"]), float(metrics["grad_norm"])


def main() -> None:
    assert len(jax.devices()) == 8
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
        "loss": [trained(params, d) for d in (1, 2, 8)],
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
