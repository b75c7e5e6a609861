"""Pictures in, batches out: data sets, a resumable pipeline, and PNG files.

Importing this package needs only numpy and jax; each reader loads its library when it is called.
"""

from diffusion_jax.data.augment import Augment, flip
from diffusion_jax.data.images import grid, save_png, to_uint8
from diffusion_jax.data.pipeline import Batches, DeviceBatch, batches, put_on_device
from diffusion_jax.data.sources import Source, digits, from_arrays, in_memory
from diffusion_jax.data.tfds_sets import tfds_in_memory, tfds_source

__all__ = [
    "Augment",
    "Batches",
    "DeviceBatch",
    "Source",
    "batches",
    "digits",
    "flip",
    "from_arrays",
    "grid",
    "in_memory",
    "put_on_device",
    "save_png",
    "tfds_in_memory",
    "tfds_source",
    "to_uint8",
]
