"""Pictures in, batches out: data sets, a resumable pipeline, and PNG files.

Importing this package needs only numpy and jax; each reader loads its library when it is called.
"""

from diffusion_jax.data.augment import Augment, crop, flip, patch
from diffusion_jax.data.bpe import BytePairs
from diffusion_jax.data.captions import EMOJI_STYLES, caption_alone, captioned, emoji_texts
from diffusion_jax.data.cleaning import clean, collapse
from diffusion_jax.data.curation import (
    above,
    clip_filter,
    intersection,
    similarities,
    t_mars,
)
from diffusion_jax.data.images import grid, read_map, read_png, save_png, to_uint8
from diffusion_jax.data.lettering import Lettered, subtitled, write
from diffusion_jax.data.pairs import EncodeImages, EncodeTexts, pair_similarities
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
from diffusion_jax.data.sources import Source, digits, from_arrays, from_vectors
from diffusion_jax.data.text_regions import StrokeDetector, TextDetector, either, mask_text
from diffusion_jax.data.tfds_sets import tfds_in_memory, tfds_source
from diffusion_jax.data.tokenizers import Tokenizer, Words, commas_apart, marks_apart, tokenized
from diffusion_jax.data.views import in_memory, joined, shrunk, subset

__all__ = [
    "COLOURS",
    "EMOJI_STYLES",
    "SHAPES",
    "SHAPES_WORDS",
    "SIZES",
    "Augment",
    "Batches",
    "BytePairs",
    "Described",
    "Description",
    "DeviceBatch",
    "EncodeImages",
    "EncodeTexts",
    "Lettered",
    "Scene",
    "Source",
    "StrokeDetector",
    "TextDetector",
    "Thing",
    "Tokenizer",
    "Words",
    "above",
    "batches",
    "caption_alone",
    "captioned",
    "clean",
    "clip_filter",
    "collapse",
    "commas_apart",
    "crop",
    "digits",
    "either",
    "emoji_texts",
    "flip",
    "from_arrays",
    "from_vectors",
    "grid",
    "in_memory",
    "intersection",
    "is_held_out",
    "joined",
    "local_rows",
    "marks_apart",
    "mask_text",
    "pair_similarities",
    "parse_caption",
    "patch",
    "put_on_device",
    "read_map",
    "read_png",
    "render",
    "save_png",
    "scene",
    "shapes",
    "shrunk",
    "similarities",
    "subset",
    "subtitled",
    "t_mars",
    "tfds_in_memory",
    "tfds_source",
    "to_uint8",
    "tokenized",
    "write",
    "write_caption",
]
