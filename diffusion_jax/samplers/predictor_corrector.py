"""Predictor-corrector: a sampler's step to s, then Langevin dynamics at s."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from diffusion_jax.samplers.euler_maruyama import EulerMaruyama
from diffusion_jax.samplers.langevin import Langevin, SignalToNoise
from diffusion_jax.types import Denoiser, Sampler, Time


@runtime_checkable
class Corrector(Protocol):
    """Moves x at t to a better x at t; with `draws` white noises at most."""

    @property
    def draws(self) -> int: ...
    def correct(self, x: Array, t: Time, denoiser: Denoiser, process: Any, noise: Any) -> Array: ...


@partial(jax.tree_util.register_dataclass, data_fields=["predictor", "corrector"], meta_fields=[])
@dataclass(frozen=True)
class PredictorCorrector:
    """The predictor moves x from t to s; the corrector makes it a sample of q(x_s).

    Clean data, sigma_s = 0, isn't corrected.

    Attributes:
        predictor: any sampler.
        corrector: `Langevin`, or whatever has its `draws` and `correct`.

    Source: Song et al. 2021 (arXiv:2011.13456), Algorithm 1.
    """

    predictor: Sampler = EulerMaruyama()
    corrector: Corrector = Langevin(SignalToNoise(), steps=1)

    @property
    def draws(self) -> int:
        return self.predictor.draws + self.corrector.draws

    def init(self, x: Array, times: Array) -> PyTree:
        return self.predictor.init(x, times)

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        x, state = self.predictor.step(x, state, t, s, denoiser, process, noise)
        _, sigma_s = process.scales(s, x)

        def correct():
            first = self.predictor.draws
            return self.corrector.correct(x, s, denoiser, process, lambda j: noise(first + j))

        return jax.lax.cond(jnp.all(sigma_s == 0), lambda: x, correct), state
