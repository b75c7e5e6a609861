"""Fashion-MNIST, 28x28, by a transformer: the data, process and target of `fashion_mnist`.

python train.py configs/fashion_mnist_dit.py
"""

import functools

import optax

from diffusion_jax import Cosine, Gaussian, V
from diffusion_jax.data import tfds_in_memory
from diffusion_jax.models import ClassLabels, DiT, from_linen, with_time
from diffusion_jax.models.dit import Remat
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.optimizers import adamw


def recipe(
    steps: int = 20_000,
    batch_size: int = 32,
    seed: int = 0,
    learning_rate: float = 5e-4,
    patch: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 6,
    remat: Remat = "none",
    drop_label: float = 0.1,
    ema_decay: float = 0.999,
    accumulate: int = 1,
) -> Experiment:
    """Fashion-MNIST, 28x28, class-conditional, by a DiT of 4.2 M parameters on 49 tokens.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, after a warm-up of 500 steps.
        patch: height and width of a token; 2 is 196 tokens, and four times the work.
        width: of the tokens.
        depth: blocks.
        heads: of each attention; they divide the width.
        remat: what the gradient computes again instead of keeping.
        drop_label: probability that a label is dropped (classifier-free guidance).
        ema_decay: of the averaged parameters.
        accumulate: micro-batches a step.
    """
    network = DiT(
        out_channels=1, size=28, patch=patch, width=width, depth=depth, heads=heads, remat=remat
    )
    return Experiment(
        source=functools.partial(tfds_in_memory, "fashion_mnist"),
        image_shape=(28, 28, 1),
        model=with_time(from_linen(network), lambda t: 1000.0 * t),
        process=Gaussian(Cosine()),
        parameterization=V(),
        conditioning=ClassLabels(10, drop_label),
        learning_rate=optax.linear_schedule(0.0, learning_rate, 500),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        accumulate=accumulate,
        guidance=2.0,
    )
