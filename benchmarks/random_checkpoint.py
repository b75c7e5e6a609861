"""Stable Diffusion with random weights, in diffusers' layout, to try commands on:
python benchmarks/random_checkpoint.py runs/random_sd

Tiny by default (64x64 pictures in seconds); --size mid has 0.4 times Stable Diffusion 1.5's widths
(256x256), --size sd15 is of its sizes, 4.3 GB.
What it draws is noise.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from diffusion_jax.data import BytePairs  # noqa: E402
from diffusion_jax.interop import Part, StableDiffusion, save_stable_diffusion  # noqa: E402
from diffusion_jax.models import KLAutoencoder, sd_autoencoder  # noqa: E402
from diffusion_jax.models.clip import CLIP, TextTransformer  # noqa: E402
from diffusion_jax.models.cuts import STACK  # noqa: E402
from diffusion_jax.models.latent_unet import LatentUNet, sd1_unet  # noqa: E402
from diffusion_jax.types import Condition, Params  # noqa: E402

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def write_tokenizer(folder: Path, words: BytePairs) -> None:
    """vocab.json, merges.txt and tokenizer_config.json, as transformers writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {token: number for number, token in enumerate(words.vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in words.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    told = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": words.length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def drawn(init: Any, *inputs: Any) -> Params:
    """Parameters at random, those that start at zero too: all of them matter so."""
    like = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
    rng = np.random.default_rng(0)

    def one(path: Any, leaf: Any) -> np.ndarray:
        *places, name = (key.key for key in path)
        if name in ("scale", "bias"):
            return np.full(leaf.shape, float(name == "scale"), np.float32)
        shape = leaf.shape[STACK in places :]
        fan = np.prod(shape[:-1]) if name == "kernel" else shape[-1]
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(fan**-0.5)

    return jax.tree_util.tree_map_with_path(one, like)


def networks(size: str, words: BytePairs) -> tuple[Any, Any, Any, int]:
    """U-Net, codec, text encoder, and the text's features."""
    width, layers, heads = {"tiny": (32, 2, 2), "mid": (320, 6, 8), "sd15": (768, 12, 12)}[size]
    rows = 49_408 if size == "sd15" else words.size  # of the embedding, whatever is read
    tower = TextTransformer(None, rows, 77, width, layers, heads, end=words.end)
    if size == "sd15":
        return sd1_unet(), sd_autoencoder(), CLIP(None, tower), width
    if size == "mid":
        unet, codec = LatentUNet(channels=(128, 256, 512, 512)), KLAutoencoder(channels=64)
        return unet, codec, CLIP(None, tower), width
    unet = LatentUNet(channels=(32, 64), depths=(1, 0), heads=(2, 2), blocks=1, groups=8)
    codec = KLAutoencoder(channels=16, multipliers=(1, 2, 2), blocks=1, groups=8)
    return unet, codec, CLIP(None, tower), width


def main(
    folder: tyro.conf.Positional[Path],
    size: Literal["tiny", "mid", "sd15"] = "tiny",
    vocabulary: Path | None = None,
) -> None:
    """Writes the folder.

    Args:
        folder: is made where there is none.
        size: of the networks.
        vocabulary: CLIP's list of byte pairs; without it texts are read byte by byte.
    """
    if vocabulary is None:
        words = BytePairs.from_merges([], pad=513)
    else:
        words = BytePairs.from_vocabulary(vocabulary, pad=49_407)
    unet, codec, clip, width = networks(size, words)
    x, tokens = jnp.zeros((1, 16, 16, 4)), jnp.zeros((1, 77), jnp.int32)
    picture, side = jnp.zeros((1, 64, 64, 3)), {"tiny": 16, "mid": 32, "sd15": 64}[size]
    told = Condition(tokens=jnp.zeros((1, 77, width)))
    texts = drawn(lambda key, ids: clip.init(key, ids, method="encode_text"), tokens)
    system = StableDiffusion(
        unet=Part(unet, drawn(unet.init, x, jnp.zeros(1), told), {"sample_size": side}),
        codec=Part(codec, drawn(codec.init, picture), {"scaling_factor": 0.18215}),
        texts=(Part(clip, texts),),
        scheduler=SCHEDULER,
    )
    with tempfile.TemporaryDirectory() as temporary:
        write_tokenizer(Path(temporary) / "tokenizer", words)
        save_stable_diffusion(folder, system, tokenizers=temporary)
    total = sum(
        leaf.size
        for part in (system.unet, system.codec, *system.texts)
        for leaf in jax.tree.leaves(part.params)
    )
    print(f"wrote {folder}: {total / 1e6:.1f} M parameters")


if __name__ == "__main__":
    tyro.cli(main)
