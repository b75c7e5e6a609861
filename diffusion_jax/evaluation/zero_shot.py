"""Classes by their names: the nearest of the texts that name them (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from diffusion_jax.data.pairs import EncodeTexts, unit_rows
from diffusion_jax.evaluation.inputs import Labels, checked_labels
from diffusion_jax.evaluation.retrieval import Embeddings, OtherEmbeddings, Recall, recall


def class_embeddings(
    encode_texts: EncodeTexts,
    names: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
    *,
    batch: int = 256,
) -> Float[np.ndarray, "classes d"]:
    """One unit embedding for each class: the mean over the templates, brought back to length 1.

        w_c = m / |m|,   m = mean over templates of encode(template with the name of c)

    Args:
      encode_texts: texts -> unit embeddings [b d].
      names: of the classes, in the order of their labels.
      templates: each with one {} for the name. Their ensemble is over embeddings, so that it costs
        no more than one template once it is made.
      batch: texts in a call; the last call has what is left.

    Raises:
      ValueError: no names or templates, one text instead of several, a template without {}, a name
        twice, a batch below 1, embeddings that aren't unit rows, or templates that cancel out.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 3.1.4.
    """
    for what, given in (("names", names), ("templates", templates)):
        if isinstance(given, str):
            raise ValueError(f"{what} must be a sequence of texts, not the text {given!r}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    without = [t for t in templates if "{}" not in t]
    if not names or not templates or without:
        raise ValueError(
            f"class_embeddings needs names and templates with {{}}, not {len(names)} names and "
            f"templates {without or list(templates)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"the names of classes must differ, but {len(set(names))} do of {names}")
    # Not str.format: a name may hold braces.
    texts = [template.replace("{}", name) for name in names for template in templates]
    rows = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        rows.append(unit_rows("embeddings of texts", encode_texts(some), len(some)))
    means = np.concatenate(rows).reshape(len(names), len(templates), -1).mean(1)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if lengths.min() < 1e-6:
        raise ValueError(f"the templates of {names[int(lengths.argmin())]!r} cancel out")
    return means / lengths


def zero_shot_predictions(
    images: Embeddings, classes: OtherEmbeddings, top: int = 1
) -> Int[np.ndarray, "n top"]:
    """The labels of the nearest classes, the nearest first; of equals, the lowest label.

    Args:
      images: unit embeddings of pictures [n, d].
      classes: unit embeddings of classes [classes, d], from `class_embeddings`.
      top: how many, 1 to classes.

    Raises:
      ValueError: embeddings that aren't unit rows of one d, or top out of range.
    """
    pictures, names = unit_rows("images", images), unit_rows("classes", classes)
    if pictures.shape[1] != names.shape[1]:
        raise ValueError(
            f"images {list(pictures.shape)} and classes {list(names.shape)} must be [n, d] and "
            "[classes, d]"
        )
    if not 1 <= top <= len(names):
        raise ValueError(f"top must be in 1..{len(names)}, the number of classes, not {top}")
    return np.argsort(-(pictures @ names.T), axis=1, kind="stable")[:, :top].astype(np.int32)


def zero_shot_accuracy(
    images: Embeddings, classes: OtherEmbeddings, labels: Labels, top: Sequence[int] = (1, 5)
) -> Recall:
    """How often the label is among the nearest k classes; ties as in `retrieval`.

    Args:
      images: unit embeddings of pictures [n, d].
      classes: unit embeddings of classes [classes, d].
      labels: [n] in 0..classes - 1.
      top: the k, 1 to classes.

    Returns:
      `found[k]` is the top-k accuracy, and `chance[k]` = k / classes.

    Raises:
      ValueError: what `recall` refuses, or labels that aren't n integers in 0..classes - 1.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 3.1.
    """
    known = checked_labels(labels, len(images), len(classes))
    return recall(images, classes, known[:, None] == np.arange(len(classes)), top)
