"""Losses: (params, extra, key, batch) -> (loss, (metrics, extra))."""

from diffusion_jax.losses.classification import classification_loss
from diffusion_jax.losses.contrastive import (
    Pairs,
    contrastive_loss,
    sigmoid_objective,
    softmax_objective,
)
from diffusion_jax.losses.denoising import (
    averaged,
    denoising_loss,
    denoising_terms,
)
from diffusion_jax.losses.importance import (
    History,
    importance_sampled,
    init_history,
)
from diffusion_jax.losses.restoration import (
    SoftScore,
    absolute,
    after_corruption,
    another_picture,
    restoration_loss,
)
from diffusion_jax.losses.score_matching import (
    denoising_score_matching,
    explicit_score_matching,
    geometric_scales,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from diffusion_jax.losses.variational import (
    hybrid_terms,
    variational_terms,
    vdm_loss,
)
from diffusion_jax.losses.weightings import (
    P2,
    EDMWeighting,
    MinSNR,
    SigmoidWeighting,
    constant,
    elbo,
    simple,
)

__all__ = [
    "P2",
    "EDMWeighting",
    "History",
    "MinSNR",
    "Pairs",
    "SigmoidWeighting",
    "SoftScore",
    "absolute",
    "after_corruption",
    "another_picture",
    "averaged",
    "classification_loss",
    "constant",
    "contrastive_loss",
    "denoising_loss",
    "denoising_score_matching",
    "denoising_terms",
    "elbo",
    "explicit_score_matching",
    "geometric_scales",
    "hybrid_terms",
    "importance_sampled",
    "init_history",
    "restoration_loss",
    "sigmoid_objective",
    "simple",
    "sliced_score_matching",
    "sliced_score_matching_vr",
    "softmax_objective",
    "variational_terms",
    "vdm_loss",
]
