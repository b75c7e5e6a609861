"""The transformer over a codec's codes as a task: its source is `latents.codes`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from diffusion_jax.data import grid, to_uint8
from diffusion_jax.losses.autoregressive import code_loss
from diffusion_jax.models.code_transformer import CodeTransformer
from diffusion_jax.systems.codes import CodePictures
from diffusion_jax.training.latents import codec_params, load_vq
from diffusion_jax.training.sharding import batch_parts
from diffusion_jax.training.task import ToldTask
from diffusion_jax.types import Batch, Key, Loss, Params


@dataclass(frozen=True, kw_only=True)
class CodeTask(ToldTask):
    """A `CodeTransformer` and what it's trained with; `image_shape` is the codes', (h, w).

    Attributes:
        network: of codes.
        codec: run folder of the vector-quantised codec; it's among `needs` too.
        guidance: sampling's default gamma; 1 is none.
        temperature, top_k, top_p: sampling's defaults, as in `sample_codes`.
    """

    network: CodeTransformer
    codec: Path
    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def init_params(self, key: Key) -> Params:
        codes = jnp.zeros((1, self.network.count), jnp.int32)
        return self.network.init(key, codes, self.blank_condition())["params"]

    def loss(self) -> Loss:
        return code_loss(self.predict)

    def predict(self, params: Params, key: Key, batch: Batch) -> tuple[Array, Array]:
        """Logits and codes of a batch, whose images are codes."""
        codes = batch["image"].astype(jnp.int32).reshape(len(batch["image"]), -1)
        condition = self.conditioning(key, jnp.arange(len(codes)), batch)
        logits: Any = self.network.apply({"params": params}, codes, condition)
        return logits, codes

    def check(self) -> None:
        super().check()
        if self.network.count != math.prod(self.image_shape):
            raise ValueError(
                f"the network predicts {self.network.count} codes, and pictures have "
                f"{self.image_shape}."
            )

    def use(self, run_dir: Path) -> str:
        return f"sample.py {run_dir}"

    def system(self, params: Params, codec: Params | None = None, **how: Any) -> CodePictures:
        """The pictures of these parameters; `how` replaces guidance, temperature, top_k, top_p."""
        task = load_vq(self.codec)
        gamma = how.pop("guidance", self.guidance)
        drawn = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p} | how
        return CodePictures(
            network=self.network,
            params=params,
            decoder=task.decode_codes,
            codec=codec_params(self.codec) if codec is None else codec,
            conditioning=self.conditioning,
            size=(self.image_shape[0], self.image_shape[1]),
            guidance=None if gamma == 1.0 else gamma,
            **drawn,
        )

    def draw(self, params: Params, mesh: Mesh, data_dir: Path | None) -> np.ndarray:
        """Pictures of what held-out examples are told."""
        from diffusion_jax.training.code_cli import draw_codes  # which reads tasks
        from diffusion_jax.training.sampling import usual_known

        known = usual_known(self, 32, data_dir)
        size = math.lcm(8, batch_parts(mesh))
        pictures = draw_codes(
            self.system(params), known, seed=self.seed, batch_size=size, mesh=mesh
        )
        return grid(to_uint8(pictures), columns=8, scale=max(1, 32 // pictures.shape[1]))
