"""Networks in Flax: the only place that imports it."""

from diffusion_jax.models.adapters import from_linen, from_nnx, with_time
from diffusion_jax.models.autoencoder import (
    KLAutoencoder,
    Posterior,
    Quantized,
    VQAutoencoder,
    sd_autoencoder,
)
from diffusion_jax.models.classifier import (
    NoiseAwareClassifier,
    adm_classifier_64,
    digits_classifier,
)
from diffusion_jax.models.clip import CLIP, CLIP_SIZES, published_clip
from diffusion_jax.models.clip_blocks import Encoding, exact_gelu, quick_gelu
from diffusion_jax.models.clip_resnet import FrozenBatchNorm, ModifiedResNet
from diffusion_jax.models.clip_text import TextTransformer
from diffusion_jax.models.clip_vision import VisionTransformer
from diffusion_jax.models.code_transformer import CodeTransformer
from diffusion_jax.models.conditioning import (
    Attributes,
    ClassLabels,
    Conditioning,
    Joined,
    Layout,
)
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.models.dit import DiT, dit
from diffusion_jax.models.encoders import (
    Encoded,
    LayoutEncoder,
    Located,
    TextEncoder,
    WithEmbedding,
)
from diffusion_jax.models.image_conditioning import (
    Edges,
    Grey,
    Inpainting,
    LowResolution,
    Segmentation,
)
from diffusion_jax.models.latent_unet import (
    LatentUNet,
    SpatialTransformer,
    sd1_unet,
    sd2_unet,
    sdxl_unet,
)
from diffusion_jax.models.layers import (
    Fourier,
    PooledDown,
    ResidualBlock,
    ResizeUp,
    Sinusoidal,
    StridedDown,
)
from diffusion_jax.models.patches import Patched
from diffusion_jax.models.prior import CodePrior, DiffusionPrior
from diffusion_jax.models.refined import Refined
from diffusion_jax.models.text_conditioning import Embedding, Prompt, Text, Tokens
from diffusion_jax.models.unet import (
    UNet,
    adm_64,
    adm_256,
    ddpm_cifar10,
    digits_unet,
    patches_unet,
    shapes_unet,
    unclip_64,
    unclip_256,
    unclip_1024,
)
from diffusion_jax.models.vae import VAE

__all__ = [
    "CLIP",
    "CLIP_SIZES",
    "VAE",
    "Attributes",
    "ClassLabels",
    "CodePrior",
    "CodeTransformer",
    "Conditioning",
    "DiT",
    "DiffusionPrior",
    "Edges",
    "Embedding",
    "Encoded",
    "Encoding",
    "Fourier",
    "FrozenBatchNorm",
    "Grey",
    "Inpainting",
    "Joined",
    "KLAutoencoder",
    "LatentUNet",
    "Layout",
    "LayoutEncoder",
    "Located",
    "LowResolution",
    "ModifiedResNet",
    "NoiseAwareClassifier",
    "PatchDiscriminator",
    "Patched",
    "PooledDown",
    "Posterior",
    "Prompt",
    "Quantized",
    "Refined",
    "ResidualBlock",
    "ResizeUp",
    "Segmentation",
    "Sinusoidal",
    "SpatialTransformer",
    "StridedDown",
    "Text",
    "TextEncoder",
    "TextTransformer",
    "Tokens",
    "UNet",
    "VQAutoencoder",
    "VisionTransformer",
    "WithEmbedding",
    "adm_64",
    "adm_256",
    "adm_classifier_64",
    "ddpm_cifar10",
    "digits_classifier",
    "digits_unet",
    "dit",
    "exact_gelu",
    "from_linen",
    "from_nnx",
    "patches_unet",
    "published_clip",
    "quick_gelu",
    "sd1_unet",
    "sd2_unet",
    "sd_autoencoder",
    "sdxl_unet",
    "shapes_unet",
    "unclip_64",
    "unclip_256",
    "unclip_1024",
    "with_time",
]
