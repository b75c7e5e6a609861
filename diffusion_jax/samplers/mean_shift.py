"""Classifier guidance of ancestral sampling, by a shift of its mean.

    x_s = m + s w g + sqrt(w) z,  g = grad log p(y | x_t)                               (1)

with the mean m and the variance w of `Ancestral`. As w is 0 in a step to sigma_s = 0, that
step isn't guided. `classifier_guided` is the form for any sampler. For a perfect classifier a
step's mean there is m + (v / r) g, N(r x, v) the transition from s to t, so the forms agree in
the limit of short steps alone.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jaxtyping import Array

from diffusion_jax.classifier_guidance import LogProbability, log_gradient
from diffusion_jax.guidance import Scale, scale_at
from diffusion_jax.samplers.ancestral import Ancestral
from diffusion_jax.schedules import safe_sqrt
from diffusion_jax.types import Denoiser


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["ancestral", "log_probability", "scale"],
    meta_fields=[],
)
@dataclass(frozen=True)
class MeanShift:
    """Equation (1).

    Attributes:
        ancestral: gives m and w.
        log_probability: (pixels of x_t, t [b]) -> [b], as a pytree: `jax.tree_util.Partial(f)`
            (a plain f will do where the sampler isn't an argument of jitted code).
        scale: s, a number or [b], traced; or a function of t as a pytree.

    Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), Algorithm 1.
    """

    ancestral: Ancestral
    log_probability: LogProbability
    scale: Scale = 1.0
    draws = 1

    def init(self, x: Array, times: Array) -> tuple[()]:
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        mean, variance = self.ancestral.law(x, t, s, denoiser, process)
        g = log_gradient(self.log_probability, process, x, t)
        shifted = mean + scale_at(self.scale, t, x) * variance * g
        return shifted + safe_sqrt(variance) * noise(0), state
