"""Pictures in, batches out: data sets, a resumable pipeline, and PNG files.

Importing this package needs only numpy and jax; each reader loads its library when it is called.
"""

from diffusion_jax.data.augment import Augment, flip
from diffusion_jax.data.images import grid, read_map, read_png, save_png, to_uint8
from diffusion_jax.data.pipeline import (
    Batches,
    DeviceBatch,
    batches,
    local_rows,
    put_on_device,
)
from diffusion_jax.data.shapes import (
    SHAPES_WORDS,
    Scene,
    Thing,
    is_held_out,
    render,
    scene,
    shapes,
)
from diffusion_jax.data.shapes_captions import (
    COLOURS,
    SHAPES,
    SIZES,
    Described,
    Description,
    parse_caption,
    write_caption,
)
from diffusion_jax.data.sources import Source, digits, from_arrays, in_memory
from diffusion_jax.data.tfds_sets import tfds_in_memory, tfds_source
from diffusion_jax.data.tokenizers import Tokenizer, Words, tokenized

__all__ = [
    "COLOURS",
    "SHAPES",
    "SHAPES_WORDS",
    "SIZES",
    "Augment",
    "Batches",
    "Described",
    "Description",
    "DeviceBatch",
    "Scene",
    "Source",
    "Thing",
    "Tokenizer",
    "Words",
    "batches",
    "digits",
    "flip",
    "from_arrays",
    "grid",
    "in_memory",
    "is_held_out",
    "local_rows",
    "parse_caption",
    "put_on_device",
    "read_map",
    "read_png",
    "render",
    "save_png",
    "scene",
    "shapes",
    "tfds_in_memory",
    "tfds_source",
    "to_uint8",
    "tokenized",
    "write_caption",
]
