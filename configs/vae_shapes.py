"""A VAE of one coloured shape, 16x16, whose factors are known, and by --beta a beta-VAE.

    python train.py configs/vae_shapes.py --beta 1 --run-dir runs/vae_shapes_1
    python train.py configs/vae_shapes.py --beta 4 --run-dir runs/vae_shapes_4
    python train.py configs/vae_shapes.py --beta 16 --run-dir runs/vae_shapes_16
    python benchmarks/disentanglement.py runs/vae_shapes_1 runs/vae_shapes_4 runs/vae_shapes_16

Mutual information gaps of 0.03, 0.11 and 0.15 for beta 1, 4 and 16 (docs/latent.md).
"""

from pathlib import Path

from diffusion_jax.data import Source, in_memory, scene, shapes, subset
from diffusion_jax.models.vae import VAE
from diffusion_jax.training.codecs import VAETask
from diffusion_jax.training.optimizers import adam, warmed_up_cosine


def one_shape(split: str, data_dir: Path | None) -> Source:
    """The records of a single object, which its colour, shape, size and place explain."""
    source = shapes(split, 16)
    alone = [i for i in range(len(source)) if len(scene(split, i).things) == 1]
    return in_memory(subset(source, alone))


def recipe(
    steps: int = 6000,
    batch_size: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    beta: float = 4.0,
    latents: int = 10,
    width: int = 256,
    ema_decay: float = 0.999,
) -> VAETask:
    """Single shapes as a vector, by the bound on 8-bit pixels in bits a dimension.

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
        source=one_shape,
        image_shape=(16, 16, 3),
        network=VAE((16, 16, 3), latents, width=width),
        beta=beta,
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adam,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
    )
