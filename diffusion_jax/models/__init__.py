"""Networks in Flax: the only place that imports it."""

from diffusion_jax.models.adapters import from_linen, from_nnx, with_time
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
from diffusion_jax.models.conditioning import (
    Attributes,
    ClassLabels,
    Conditioning,
    Joined,
    Layout,
)
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

__all__ = [
    "CLIP",
    "CLIP_SIZES",
    "Attributes",
    "ClassLabels",
    "CodePrior",
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
    "Layout",
    "LayoutEncoder",
    "Located",
    "LowResolution",
    "ModifiedResNet",
    "NoiseAwareClassifier",
    "Patched",
    "PooledDown",
    "Prompt",
    "Refined",
    "ResidualBlock",
    "ResizeUp",
    "Segmentation",
    "Sinusoidal",
    "StridedDown",
    "Text",
    "TextEncoder",
    "TextTransformer",
    "Tokens",
    "UNet",
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
    "shapes_unet",
    "unclip_64",
    "unclip_256",
    "unclip_1024",
    "with_time",
]
