"""Networks in Flax: the only place that imports it."""

from diffusion_jax.models.adapters import from_linen, from_nnx, with_time
from diffusion_jax.models.classifier import (
    NoiseAwareClassifier,
    adm_classifier_64,
    digits_classifier,
)
from diffusion_jax.models.conditioning import ClassLabels
from diffusion_jax.models.encoders import Encoded, LayoutEncoder, TextEncoder
from diffusion_jax.models.layers import (
    Fourier,
    PooledDown,
    ResidualBlock,
    ResizeUp,
    Sinusoidal,
    StridedDown,
)
from diffusion_jax.models.unet import UNet, adm_64, ddpm_cifar10, digits_unet

__all__ = [
    "ClassLabels",
    "Encoded",
    "Fourier",
    "LayoutEncoder",
    "NoiseAwareClassifier",
    "PooledDown",
    "ResidualBlock",
    "ResizeUp",
    "Sinusoidal",
    "StridedDown",
    "TextEncoder",
    "UNet",
    "adm_64",
    "adm_classifier_64",
    "ddpm_cifar10",
    "digits_classifier",
    "digits_unet",
    "from_linen",
    "from_nnx",
    "with_time",
]
