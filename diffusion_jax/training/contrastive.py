"""CLIP as a task: pictures and their texts, embedded side by side."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.losses.contrastive import Objective, Pairs, contrastive_loss, softmax_objective
from diffusion_jax.models.clip import CLIP
from diffusion_jax.models.text_conditioning import one_of
from diffusion_jax.random import white_noise
from diffusion_jax.timesteps import Stratified, Times
from diffusion_jax.training.task import Task
from diffusion_jax.types import Batch, Key, Loss, Params, Process, Tokenizer

Encoder = Callable[[Any], jax.Array]


@dataclass(frozen=True, kw_only=True)
class Contrastive(Task):
    """A CLIP and what it's trained with; its source's records have "tokens" [texts length].

    Attributes:
        clip: both encoders.
        tokenizer: data_dir -> the tokenizer, which may be made of the data's own texts.
        length: numbers that a text becomes.
        texts: rows of tokens that a picture has; each step takes one at random.
        objective: over the global batch.
        process: corrupts the pictures, each at a time of its own, so that the encoder may guide
            samplers by x_t itself (`noised_clip_guided`); None leaves them clean.
        times: where t is drawn for it.
        start: parameters to begin with, such as those of a CLIP of clean pictures; None is random.
    """

    clip: CLIP
    tokenizer: Callable[[Path | None], Tokenizer]
    length: int
    texts: int = 1
    objective: Objective = softmax_objective
    process: Process | None = None
    times: Times = Stratified()
    start: Params | None = None

    @property
    def features(self) -> tuple[str, ...]:
        return ("tokens",)

    def init_params(self, key: Key) -> Params:
        if self.start is not None:
            return jax.tree.map(jnp.asarray, self.start)
        batch = self.blank(1)
        return self.clip.init(key, batch["image"], batch["tokens"][:, 0])["params"]

    def blank(self, batch_size: int) -> Mapping[str, Any]:
        shape = (batch_size, self.texts, self.length)
        return {**super().blank(batch_size), "tokens": jnp.zeros(shape, jnp.int32)}

    def loss(self) -> Loss:
        return contrastive_loss(self.embed, self.objective)

    def embed(self, params: Params, key: Key, batch: Batch) -> Pairs:
        """A training batch's embeddings; each picture's text is chosen by a key of its own."""
        key_text, key_time, key_noise = jax.random.split(key, 3)
        pixels, tokens = batch["image"], batch["tokens"]
        index = jnp.arange(tokens.shape[0])
        chosen = one_of(key_text, index, {"tokens": tokens})["tokens"]
        if self.process is not None:
            x0 = self.process.encode(pixels)
            t = self.times(key_time, index, len(index))
            x = self.process.corrupt(x0, white_noise(key_noise, index, x0), t)
            pixels = self.process.decode(x)
        answer: Any = self.clip.apply({"params": params}, pixels, chosen)
        image, text, scale = answer
        return Pairs(image.embedding, text.embedding, scale, params.get("bias"))

    def use(self, run_dir: Path) -> str:
        return f"sample.py OTHER_RUN --clip {run_dir} --clip-text TEXT"


def image_encoder(task: Contrastive, params: Params, batch_size: int = 64) -> Encoder:
    """pictures [n h w c] in [-1, 1] -> unit embeddings [n d], so many pictures at a time."""
    return functools.partial(_in_batches, _jitted(task, params, "encode_image"), batch_size)


def token_encoder(task: Contrastive, params: Params, batch_size: int = 256) -> Encoder:
    """tokens [n length] -> unit embeddings [n d], so many texts at a time."""
    return functools.partial(_in_batches, _jitted(task, params, "encode_text"), batch_size)


def text_encoder(
    task: Contrastive, params: Params, data_dir: Path | None = None, batch_size: int = 256
) -> Encoder:
    """texts -> unit embeddings [n d], so many texts at a time."""
    tokenizer = task.tokenizer(data_dir)
    encode_tokens = token_encoder(task, params, batch_size)

    def encode(texts: Sequence[str]) -> jax.Array:
        return encode_tokens(np.stack([tokenizer.encode(text) for text in texts]))

    return encode


def _jitted(task: Contrastive, params: Params, method: str) -> Encoder:
    def embedding(params: Params, x: jax.Array) -> jax.Array:
        answer: Any = task.clip.apply({"params": params}, x, method=method)
        return answer.embedding

    return functools.partial(jax.jit(embedding), params)


def _in_batches(run: Encoder, batch_size: int, x: Any) -> jax.Array:
    """run(x) by parts; the last is filled up, so that one program serves all."""
    x = np.asarray(x)
    parts = []
    for start in range(0, len(x), batch_size):
        part = x[start : start + batch_size]
        full = np.concatenate([part, np.repeat(part[:1], batch_size - len(part), axis=0)])
        parts.append(run(full)[: len(part)])
    return jnp.concatenate(parts)
