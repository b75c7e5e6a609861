"""Parameters that other libraries wrote, or shall read. Nothing is unpickled."""

from diffusion_jax.interop.clip import load_clip, save_clip, save_openai_clip
from diffusion_jax.interop.safetensors import Tensors, open_tensors, write_tensors
from diffusion_jax.interop.sd_parts import (
    Part,
    load_autoencoder,
    load_unet,
    save_autoencoder,
    save_unet,
)
from diffusion_jax.interop.stable_diffusion import (
    StableDiffusion,
    load_stable_diffusion,
    save_stable_diffusion,
)

__all__ = [
    "Part",
    "StableDiffusion",
    "Tensors",
    "load_autoencoder",
    "load_clip",
    "load_stable_diffusion",
    "load_unet",
    "open_tensors",
    "save_autoencoder",
    "save_clip",
    "save_openai_clip",
    "save_stable_diffusion",
    "save_unet",
    "write_tensors",
]
