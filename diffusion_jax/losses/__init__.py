"""Losses: (params, extra, key, batch) -> (loss, (metrics, extra))."""

from diffusion_jax.losses.adversarial import (
    Adversary,
    CodecExtra,
    Game,
    Latents,
    adaptive_weight,
    codec_loss,
    hinge,
    init_codec_extra,
    non_saturating,
)
from diffusion_jax.losses.autoencoding import (
    absolute_error,
    bound_loss,
    init_usage,
    kl_to_standard_normal,
    perceptual_distance,
    quantisation,
    revival,
    squared_error,
    update_usage,
    usage_metrics,
)
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
    "Adversary",
    "CodecExtra",
    "EDMWeighting",
    "Game",
    "History",
    "Latents",
    "MinSNR",
    "Pairs",
    "SigmoidWeighting",
    "SoftScore",
    "absolute",
    "absolute_error",
    "adaptive_weight",
    "after_corruption",
    "another_picture",
    "averaged",
    "bound_loss",
    "classification_loss",
    "codec_loss",
    "constant",
    "contrastive_loss",
    "denoising_loss",
    "denoising_score_matching",
    "denoising_terms",
    "elbo",
    "explicit_score_matching",
    "geometric_scales",
    "hinge",
    "hybrid_terms",
    "importance_sampled",
    "init_codec_extra",
    "init_history",
    "init_usage",
    "kl_to_standard_normal",
    "non_saturating",
    "perceptual_distance",
    "quantisation",
    "restoration_loss",
    "revival",
    "sigmoid_objective",
    "simple",
    "sliced_score_matching",
    "sliced_score_matching_vr",
    "softmax_objective",
    "squared_error",
    "update_usage",
    "usage_metrics",
    "variational_terms",
    "vdm_loss",
]
