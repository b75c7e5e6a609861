"""A plain VAE of MNIST, 28x28, and by --beta a beta-VAE.

    python train.py configs/vae_mnist.py --run-dir runs/vae_mnist_1
    python train.py configs/vae_mnist.py --beta 4 --run-dir runs/vae_mnist_4
    python train.py configs/vae_mnist.py --beta 16 --run-dir runs/vae_mnist_16
    python benchmarks/codec_quality.py runs/vae_mnist_1
    python benchmarks/vae_traversals.py runs/vae_mnist_1 runs/vae_mnist_4 runs/vae_mnist_16

Bounds of 1.54, 1.57 and 1.78 bits a dimension for beta 1, 4 and 16 (docs/latent.md).
"""

import functools

from diffusion_jax.data import tfds_in_memory
from diffusion_jax.models.vae import VAE
from diffusion_jax.training.codecs import VAETask
from diffusion_jax.training.optimizers import adam, warmed_up_cosine


def recipe(
    steps: int = 5000,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    beta: float = 1.0,
    latents: int = 10,
    width: int = 256,
    ema_decay: float = 0.999,
) -> VAETask:
    """MNIST as a vector, by the bound on 8-bit pixels in bits a dimension.

    Args:
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of Adam, after a warm-up of 100 steps; falls to 0 as a cosine.
        beta: what the KL weighs in training; the metric "bound" doesn't weigh it.
        latents: entries of the vector.
        width: of the hidden layers beside it.
        ema_decay: of the averaged parameters.
    """
    return VAETask(
        source=functools.partial(tfds_in_memory, "mnist"),
        image_shape=(28, 28, 1),
        network=VAE((28, 28, 1), latents, width=width),
        beta=beta,
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
