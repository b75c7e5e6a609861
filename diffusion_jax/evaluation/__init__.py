"""Is it any good? Fréchet distances with their protocol, and judges of what a picture shows."""

from diffusion_jax.evaluation.classifier import (
    Classifier,
    ConvClassifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from diffusion_jax.evaluation.clip_score import ClipScore, clip_score, evaluate_clip_score
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
from diffusion_jax.evaluation.probe import Probe, linear_probe, probe_accuracy
from diffusion_jax.evaluation.retrieval import (
    Recall,
    Retrieval,
    across_groups,
    chance,
    matching,
    recall,
    retrieval,
)
from diffusion_jax.evaluation.robustness import Shift, blur, noise, robustness
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
from diffusion_jax.evaluation.zero_shot import (
    class_embeddings,
    zero_shot_accuracy,
    zero_shot_predictions,
)

__all__ = [
    "CaptionVerdict",
    "Classifier",
    "ClipScore",
    "ConvClassifier",
    "DigitsJudge",
    "FeatureSpace",
    "FrechetResult",
    "LayoutVerdict",
    "Moments",
    "Probe",
    "Reading",
    "Recall",
    "Retrieval",
    "SegmentationVerdict",
    "Shift",
    "across_groups",
    "blur",
    "chance",
    "class_embeddings",
    "clip_score",
    "digits_judge",
    "evaluate_clip_score",
    "evaluate_frechet",
    "frechet_between",
    "frechet_distance",
    "judge_caption",
    "judge_layout",
    "judge_segmentation",
    "linear_probe",
    "load_classifier",
    "matching",
    "moments",
    "noise",
    "probe_accuracy",
    "read_picture",
    "read_things",
    "recall",
    "require_comparable",
    "retrieval",
    "robustness",
    "save_classifier",
    "to_levels",
    "train_classifier",
    "zero_shot_accuracy",
    "zero_shot_predictions",
]
