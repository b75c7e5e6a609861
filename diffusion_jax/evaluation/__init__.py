"""Is it any good? Fréchet distances with their protocol, and judges of what a picture shows."""

from diffusion_jax.evaluation.classifier import (
    Classifier,
    ConvClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from diffusion_jax.evaluation.digits import DigitsJudge, digits_judge
from diffusion_jax.evaluation.frechet import (
    FeatureSpace,
    FrechetResult,
    Moments,
    evaluate_frechet,
    frechet_between,
    frechet_distance,
    moments,
    require_comparable,
)
from diffusion_jax.evaluation.inputs import to_levels
from diffusion_jax.evaluation.shapes import (
    CaptionVerdict,
    LayoutVerdict,
    Reading,
    SegmentationVerdict,
    judge_caption,
    judge_layout,
    judge_segmentation,
    read_picture,
    read_things,
)

__all__ = [
    "CaptionVerdict",
    "Classifier",
    "ConvClassifier",
    "DigitsJudge",
    "FeatureSpace",
    "FrechetResult",
    "LayoutVerdict",
    "Moments",
    "Reading",
    "SegmentationVerdict",
    "digits_judge",
    "evaluate_frechet",
    "frechet_between",
    "frechet_distance",
    "judge_caption",
    "judge_layout",
    "judge_segmentation",
    "load_classifier",
    "moments",
    "read_picture",
    "read_things",
    "require_comparable",
    "save_classifier",
    "to_levels",
    "train_classifier",
]
