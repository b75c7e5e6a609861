"""unCLIP's priors as tasks: from a CLIP run's texts to its embeddings of pictures.

The diffusion prior is an `Experiment` whose pictures are vectors, `embeddings.vectors`'; the
autoregressive one is a task of its own, on `coded` ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Source
from diffusion_jax.losses.autoregressive import code_loss
from diffusion_jax.models.prior import CodePrior
from diffusion_jax.models.text_conditioning import Prompt, one_of
from diffusion_jax.processes import expand
from diffusion_jax.quantization import PrincipalCodes, fit_codes, fit_edges
from diffusion_jax.random import bernoulli, example_keys
from diffusion_jax.training.embeddings import Embeddings, embeddings, vectors
from diffusion_jax.training.task import Task
from diffusion_jax.types import Batch, Key, Loss, Params


class Fitted(NamedTuple):
    """What numbers stand for.

    Attributes:
        codes: of embeddings.
        edges: between the buckets of z_t . z_i.
    """

    codes: PrincipalCodes
    edges: jax.Array


def fitted(clip: Path, data_dir: Path | None, count: int, buckets: int, alignments: int) -> Fitted:
    """Codes and buckets of what a CLIP run says of its training split; the same ones each time.

    Raises:
        ValueError: as `fit_codes`.
        FileNotFoundError: as `embeddings`.
    """
    said = embeddings(clip, "train", data_dir)
    z = said.images * said.images.shape[1] ** 0.5
    codes = fit_codes(z, count=count, buckets=buckets)
    return Fitted(codes, fit_edges(_dots(said).ravel(), alignments))


def coded(name: str, said: Embeddings, found: Fitted) -> Source:
    """`vectors`, whose records gain `codes` [k] and, for each text, `alignment`, its bucket."""
    codes = found.codes.encode(jnp.asarray(said.images) * said.images.shape[1] ** 0.5)
    alignment = np.searchsorted(np.asarray(found.edges), _dots(said)).astype(np.int32)
    return vectors(name, said, codes=np.asarray(codes), alignment=alignment)


def _dots(said: Embeddings) -> np.ndarray:
    """z_t . z_i of each text [n texts]."""
    return np.einsum("nd,ntd->nt", said.images, said.texts)


@dataclass(frozen=True, kw_only=True)
class CodePriorTask(Task):
    """The autoregressive prior; its source is `coded`.

    Attributes:
        network: of codes.
        conditioning: texts and their embeddings.
        fit: data_dir -> what the codes stand for.
        guidance: sampling's default gamma.
    """

    network: CodePrior
    conditioning: Prompt
    fit: Callable[[Path | None], Fitted]
    guidance: float = 1.0

    @property
    def features(self) -> tuple[str, ...]:
        return ("tokens", "text_embedding", "codes", "alignment")

    def init_params(self, key: Key) -> Params:
        batch = self.blank(1)
        told = {name: batch[name][:, 0] for name in ("tokens", "text_embedding")}
        condition = self.conditioning.condition(told)
        return self.network.init(key, batch["codes"], condition, batch["alignment"][:, 0])["params"]

    def blank(self, batch_size: int) -> Mapping[str, Any]:
        one = self.conditioning.blank((batch_size,))
        several = {name: value[:, None] for name, value in one.items()}
        codes = jnp.zeros((batch_size, self.network.count), jnp.int32)
        alignment = jnp.zeros((batch_size, 1), jnp.int32)
        blank = super().blank(batch_size)
        return {**blank, **several, "codes": codes, "alignment": alignment}

    def loss(self) -> Loss:
        return code_loss(self.predict)

    def predict(self, params: Params, key: Key, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Logits and codes of a batch; each embedding's text is chosen by a key of its own."""
        key_text, key_drop = jax.random.split(key)
        index = jnp.arange(len(batch["codes"]))
        several = {name: batch[name] for name in ("tokens", "text_embedding", "alignment")}
        told = one_of(key_text, index, several)
        condition, null = self.conditioning.condition(told), self.conditioning.null(told)
        dropped = bernoulli(example_keys(key_drop, index), self.conditioning.drop)
        condition = jax.tree.map(lambda c, n: jnp.where(expand(dropped, c), n, c), condition, null)
        alignment = jnp.where(dropped, -1, told["alignment"])
        variables = {"params": params}
        logits: Any = self.network.apply(variables, batch["codes"], condition, alignment)
        return logits, batch["codes"]

    def check_source(self, source: Source) -> None:
        super().check_source(source)
        found = np.asarray(source[0]["codes"]).shape
        if found != (self.network.count,):
            raise ValueError(
                f"{source.name} has codes of shape {list(found)}, and the recipe's network is for "
                f"{self.network.count}; name the number with --codes."
            )

    def use(self, run_dir: Path) -> str:
        return f"sample.py DECODER_RUN --prior {run_dir} --prompt TEXT"
