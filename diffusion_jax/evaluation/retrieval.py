"""Is the right answer among the first k? Recall with ties and several right answers, and chance.

For a query with c right answers among n, let b wrong ones be more similar than the best right one,
and t answers, r of them right, exactly as similar. In a random order of equals the first k hold a
right one with probability

    0 for b >= k,   else   1 - C(t - r, m) / C(t, m),   m = min(k - b, t),               (1)

and R@k is its mean over queries: a constant embedding gets what guessing gets,

    chance = mean of 1 - C(n - c, k) / C(n, k).                                          (2)
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from diffusion_jax.data.pairs import unit_rows

Embeddings = Float[np.ndarray | jax.Array, "n d"]
OtherEmbeddings = Float[np.ndarray | jax.Array, "m other_d"]

_BLOCK = 1024  # queries at once: memory for a block of similarities, not for all
_DIGITS = 6  # what differs less than float32 embeddings resolve is as similar


class Recall(NamedTuple):
    """R@k and what guessing gets.

    Attributes:
      found: k -> R@k, in [0, 1].
      chance: k -> equation (2), for the same queries and answers.
      queries: how many there were.
    """

    found: dict[int, float]
    chance: dict[int, float]
    queries: int


class Retrieval(NamedTuple):
    """Recall in both directions."""

    image_to_text: Recall
    text_to_image: Recall


def recall(
    queries: Embeddings,
    answers: OtherEmbeddings,
    correct: Bool[np.ndarray, "asked known"],
    at: Sequence[int] = (1, 5, 10),
) -> Recall:
    """R@k by cosine, equations (1) and (2).

    Args:
      queries: unit embeddings [n, d].
      answers: unit embeddings [m, d].
      correct: bool [n, m], which answers are right for which query; each has at least one.
      at: the k, 1 to m.

    Raises:
      ValueError: shapes that don't agree, embeddings that aren't unit rows, marks that aren't bool,
        a k out of range, or a query without a right answer.
    """
    correct = _marks(correct)
    asked, known = unit_rows("queries", queries), unit_rows("answers", answers)
    if correct.shape != (len(asked), len(known)) or asked.shape[1] != known.shape[1]:
        raise ValueError(
            f"queries {list(asked.shape)}, answers {list(known.shape)} and correct "
            f"{list(correct.shape)} must be [n, d], [m, d] and [n, m]"
        )
    expected = chance(correct, at)
    hits = np.zeros((len(asked), len(at)))
    for start in range(0, len(asked), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosines = np.round(asked[rows] @ known.T, _DIGITS)
        right = correct[rows]
        best = np.where(right, cosines, -np.inf).max(1, keepdims=True)
        above, equal = (cosines > best).sum(1), cosines == best
        for column, k in enumerate(at):
            free = np.clip(k - above, 0, equal.sum(1))
            hits[rows, column] = _drawn(equal.sum(1), (equal & right).sum(1), free)
    found = dict(zip(at, hits.mean(0).tolist(), strict=True))
    return Recall(found, expected, len(asked))


def chance(correct: Bool[np.ndarray, "n m"], at: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """R@k of guessing, equation (2).

    Args:
      correct: bool [n, m], which answers are right for which query.
      at: the k, 1 to m.

    Raises:
      ValueError: marks that aren't bool [n, m], a k out of range, no query, or one without a right
        answer.

    >>> chance(np.eye(4, dtype=bool), at=(1, 2))
    {1: 0.25, 2: 0.5}
    """
    correct = _marks(correct)
    count, right = correct.shape[1], correct.sum(1)
    wrong = [k for k in at if not isinstance(k, int | np.integer) or not 1 <= k <= count]
    if wrong:
        raise ValueError(f"R@{wrong[0]} among {count} answers: k must be in 1..{count}, an integer")
    if not right.size or not right.all():
        without = f"query {np.argmin(right)} has no right answer" if right.size else "no queries"
        raise ValueError(f"recall isn't defined: {without}")
    total = np.full_like(right, count)
    return {k: float(_drawn(total, right, np.full_like(right, k)).mean()) for k in at}


def matching(left: Sequence[Hashable], right: Sequence[Hashable]) -> Bool[np.ndarray, "n m"]:
    """Which of the left equal which of the right, such as captions; bool [n, m].

    >>> matching(["cat", "dog"], ["dog", "cat", "dog"]).astype(int)
    array([[0, 1, 0],
           [1, 0, 1]])
    """
    numbers: dict[Hashable, int] = {}
    a, b = (np.array([numbers.setdefault(x, len(numbers)) for x in side]) for side in (left, right))
    return a[:, None] == b


def retrieval(
    images: Embeddings,
    texts: OtherEmbeddings,
    matches: Bool[np.ndarray, "asked known"],
    at: Sequence[int] = (1, 5, 10),
) -> Retrieval:
    """R@k from pictures to texts and from texts to pictures.

    A caption of several pictures should be one text, not several: the copies would share its rank.
    `distinct = sorted(set(captions))` and `matching(captions, distinct)` make the arguments.

    Args:
      images: unit embeddings [n, d].
      texts: unit embeddings [m, d].
      matches: bool [n, m], which texts are right for which picture.
      at: the k, 1 to the smaller of n and m.

    Raises:
      ValueError: what `recall` refuses.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 3.1 and Table 13.
    """
    marks = _marks(matches)
    return Retrieval(recall(images, texts, marks, at), recall(texts, images, marks.T, at))


def across_groups(
    embeddings: Embeddings,
    concepts: Sequence[Hashable],
    groups: Sequence[Hashable],
    at: Sequence[int] = (1, 5, 10),
) -> dict[tuple[Hashable, Hashable], Recall]:
    """The same concept in another group: a query of style A among all pictures of style B.

    Args:
      embeddings: unit embeddings of pictures [n, d].
      concepts: what each shows.
      groups: the style of each.
      at: the k, 1 to the size of the smallest group.

    Returns:
      (A, B) -> Recall, for each ordered pair of groups that share a concept. A query whose concept
      isn't in B isn't asked.

    Raises:
      ValueError: not one concept and group for each picture, or what `recall` refuses.
    """
    if not len(embeddings) == len(concepts) == len(groups):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(concepts)} concepts and {len(groups)} groups"
        )
    rows = np.asarray(embeddings)
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    found = {}
    for a, b in itertools.permutations(members, 2):
        same = matching([concepts[i] for i in members[a]], [concepts[i] for i in members[b]])
        asked = same.any(1)
        if asked.any():
            found[a, b] = recall(rows[members[a]][asked], rows[members[b]], same[asked], at)
    return found


def _marks(correct: Bool[np.ndarray, "n m"]) -> Bool[np.ndarray, "n m"]:
    """Which answers are right, as bool; 0 and 1 will do."""
    given = np.asarray(correct)
    integers = np.issubdtype(given.dtype, np.integer)
    known = given.dtype == bool or (integers and np.isin(given, (0, 1)).all())
    if given.ndim != 2 or not known:
        raise ValueError(
            "which answers are right must be bool [n, m], or 0 and 1, "
            f"not {given.dtype} {list(given.shape)}"
        )
    return given.astype(bool, copy=False)


def _drawn(
    total: Int[np.ndarray, " n"], right: Int[np.ndarray, " n"], draws: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The chance that draws without replacement hold a right one: 1 - C(t - r, m) / C(t, m)."""
    missed = np.ones(len(total))
    for i in range(int(draws.max(initial=0))):
        drawn = i < draws
        still = np.maximum(total - right - i, 0) / np.maximum(total - i, 1)
        missed = np.where(drawn, missed * still, missed)
    return 1 - missed
