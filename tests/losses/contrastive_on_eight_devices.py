"""Run by test_contrastive.py in a process with eight simulated devices; prints JSON.

Two linear towers embed one global batch on one device and on eight. Reported are the relative
differences of the loss, and of the gradient in parameters, against one device.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp

from diffusion_jax.losses.contrastive import (
    Pairs,
    contrastive_loss,
    sigmoid_objective,
    softmax_objective,
)
from diffusion_jax.training.sharding import batched, data_mesh, replicated


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def embed(params, key, batch):
    image, text = unit(batch["image"] @ params["image"]), unit(batch["text"] @ params["text"])
    return Pairs(image, text, jnp.exp(params["scale"]), params["bias"])


def main() -> None:
    assert len(jax.devices()) == 8
    keys = iter(jax.random.split(jax.random.key(0), 4))
    batch = {name: jax.random.normal(next(keys), (64, 24)) for name in ("image", "text")}
    params = {name: jax.random.normal(next(keys), (24, 16)) for name in ("image", "text")}
    params |= {"scale": jnp.log(10.0), "bias": jnp.asarray(-2.0)}

    def on(devices, objective):
        mesh = data_mesh(devices)
        loss = contrastive_loss(embed, objective)
        gradient = jax.jit(
            jax.value_and_grad(lambda p, b: loss(p, (), jax.random.key(0), b)[0]),
            in_shardings=(replicated(mesh), batched(mesh)),
            out_shardings=replicated(mesh),
        )
        return jax.device_get(gradient(params, batch))

    report = {}
    for name, objective in (("softmax", softmax_objective), ("sigmoid", sigmoid_objective)):
        for words, chunk in (("", None), (" in chunks", 16)):
            cut = functools.partial(objective, chunk=chunk)
            (one, first), (eight, others) = on(1, cut), on(8, cut)
            apart = [
                float(abs(a - b).max() / abs(a).max())
                for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(others), strict=True)
                if abs(a).max() > 0  # equation (1) has no bias
            ]
            report[name + words] = (float(abs(eight / one - 1)), max(apart))
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
