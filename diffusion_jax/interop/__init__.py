"""Parameters that other libraries wrote, or shall read. Nothing is unpickled."""

from diffusion_jax.interop.clip import load_clip, save_clip, save_openai_clip
from diffusion_jax.interop.safetensors import Tensors, open_tensors, write_tensors

__all__ = [
    "Tensors",
    "load_clip",
    "open_tensors",
    "save_clip",
    "save_openai_clip",
    "write_tensors",
]
