"""A run that costs next to nothing: 4x4 pictures and a network of a few hundred parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax import Cosine, Gaussian, V
from diffusion_jax.data import from_arrays
from diffusion_jax.models import ClassLabels, from_linen
from diffusion_jax.training.cli import run_command
from diffusion_jax.training.experiment import Experiment, adam


class Tiny(nn.Module):
    """One hidden convolution that knows the time and the label."""

    features: int = 8

    @nn.compact
    def __call__(self, x, t, condition):
        given = x if condition.image is None else jnp.concatenate([x, condition.image], axis=-1)
        h = nn.Conv(self.features, (3, 3))(given)
        e = nn.Dense(self.features)(t[:, None])
        if condition.vector is not None:
            e = e + nn.Dense(self.features)(condition.vector)
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(h + e[:, None, None, :]))


def pictures(split: str, data_dir=None):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    images = rng.integers(0, 80, (40, 4, 4, 1)) + 80 * labels[:, None, None, None]
    return from_arrays("toy", images.astype(np.uint8), labels, classes=3)


def recipe(
    steps: int = 6,
    batch_size: int = 8,
    seed: int = 0,
    features: int = 8,
    learning_rate: float = 1e-2,
    decay: bool = False,
    accumulate: int = 1,
) -> Experiment:
    """A toy.

    Args:
        steps: training steps.
        batch_size: examples a step.
        seed: of everything.
        features: of the hidden layer.
        learning_rate: of Adam.
        decay: let it fall to 0 at the last step.
        accumulate: micro-batches.
    """
    constant = optax.constant_schedule(learning_rate)
    falling = optax.linear_schedule(learning_rate, 0.0, steps)
    return Experiment(
        source=pictures,
        image_shape=(4, 4, 1),
        model=from_linen(Tiny(features)),
        process=Gaussian(Cosine()),
        parameterization=V(),
        conditioning=ClassLabels(3),
        learning_rate=falling if decay else constant,
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=0.9,
        accumulate=accumulate,
        guidance=2.0,
    )


def equal(a, b) -> bool:
    """Whether two trees are bit for bit the same."""
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(same))


def batch(count: int = 8):
    source = pictures("train")
    records = [source[i] for i in range(count)]
    images = np.stack([r["image"] for r in records]).astype(np.float32) / 127.5 - 1
    return {
        "image": jnp.asarray(images),
        "label": jnp.asarray([r["label"] for r in records], jnp.int32),
    }


def fails(command, argv, capsys, status=1):
    """The one line that a failing command prints."""
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: command(argv))
    assert stop.value.code == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err
