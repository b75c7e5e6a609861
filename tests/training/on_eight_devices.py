"""Run by test_devices.py in a process with eight simulated devices; prints JSON."""

import dataclasses
import json
import sys

import jax
import numpy as np

from diffusion_jax.models import Sinusoidal, UNet, from_linen
from diffusion_jax.random import example_keys, normal
from diffusion_jax.samplers import DDIM
from diffusion_jax.training.sampling import cycle_labels, sample_batches
from diffusion_jax.training.sharding import batched, data_mesh, replicated
from diffusion_jax.training.step import init_state, make_step
from tests.training import toy

assert len(jax.devices()) == 8
network = UNet(
    out_channels=1, channels=8, multipliers=(1,), blocks=1, attention=(4,), modulate=True,
    dropout=0.1, time_features=Sinusoidal(8),
)  # fmt: skip
experiment = dataclasses.replace(toy.recipe(batch_size=16), model=from_linen(network))


def noised(params):
    """Parameters that make every layer matter: nothing is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


params = jax.device_get(noised(jax.jit(experiment.init_params)(jax.random.key(0))))


def seventeenth(num: int, batch_size: int, devices: int) -> np.ndarray:
    labels = cycle_labels(experiment, num)
    pictures = sample_batches(
        experiment, params, DDIM(1.0), labels,
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


def trained(devices: int):
    mesh = data_mesh(devices)
    optimizer = experiment.optimizer(experiment.learning_rate)
    step = make_step(experiment.loss(), optimizer, mesh)
    state = jax.device_put(init_state(params, optimizer), replicated(mesh))
    state, metrics = step(state, jax.random.key(0), jax.device_put(toy.batch(16), batched(mesh)))
    return jax.device_get(state.params), float(metrics["loss"]), float(metrics["grad_norm"])


base = seventeenth(64, 64, 1)
others = {d: seventeenth(64, 64, d) for d in (2, 4, 8)}
one_loss = trained(1)[1:]
json.dump(
    {
        "num_identical": bool(np.array_equal(base, seventeenth(18, 64, 1))),
        "largest": float(np.abs(base).max()),
        "batch_1": float(np.abs(base - seventeenth(18, 1, 1)).max()),
        "devices": {str(d): float(np.abs(base - x).max()) for d, x in others.items()},
        "noise_identical": all(np.array_equal(noise(1), noise(d)) for d in (2, 4, 8)),
        "alone_noise_identical": bool(
            np.array_equal(
                noise(1)[17], normal(example_keys(jax.random.key(0), np.array([17])), (4, 4, 1))[0]
            )
        ),
        "loss": [one_loss, *(trained(d)[1:] for d in (2, 8))],
    },
    sys.stdout,
)
