"""Recall: what is perfect, what is chance, and that ties are no luck."""

import itertools

import numpy as np
import pytest

from diffusion_jax.evaluation import across_groups, chance, matching, recall, retrieval


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def several(rng, n, m, most=4):
    """1 to `most` right answers for each of n queries among m."""
    correct = np.zeros((n, m), bool)
    for row in correct:
        row[rng.choice(m, rng.integers(1, most + 1), replace=False)] = True
    return correct


def test_the_right_answer_itself_is_always_found():
    rows = unit(np.random.default_rng(0), 50, 16)
    found = recall(rows, rows, np.eye(50, dtype=bool))
    assert found.found == {1: 1.0, 5: 1.0, 10: 1.0} and found.queries == 50


def test_random_embeddings_get_chance():
    rng = np.random.default_rng(1)
    correct = several(rng, 3000, 40)
    found = recall(unit(rng, 3000, 16), unit(rng, 40, 16), correct)
    for k, expected in found.chance.items():
        error = np.sqrt(expected * (1 - expected) / 3000)
        assert 0.02 < expected < 0.6 and abs(found.found[k] - expected) < 4 * error


@pytest.mark.parametrize("size", [33, 1030])
def test_a_constant_embedding_gets_exactly_chance(size):
    """What networks and sums leave in the last bits isn't an order of answers."""
    rng = np.random.default_rng(2)
    row = unit(rng, 1, 37).astype(np.float64)
    queries, answers = (row + 1e-8 * rng.normal(size=(n, 37)) for n in (size, 61))
    found = recall(queries, answers, several(rng, size, 61))
    for k, expected in found.chance.items():
        assert found.found[k] == pytest.approx(expected, abs=1e-12)


def test_ties_are_the_mean_over_all_orders_of_equals():
    """Against enumeration: every order in which the tied answers could come."""
    query, right = np.array([[1.0, 0.0]]), np.array([[False, True, False, True, False]])
    near, tied, far = [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]
    answers = np.array([near, tied, tied, tied, far])
    for k in (1, 2, 3, 4):
        orders = list(itertools.permutations([1, 2, 3]))
        hits = [any(right[0, i] for i in (0, *order, 4)[:k]) for order in orders]
        found = recall(query, answers, right, at=[k]).found[k]
        assert found == pytest.approx(np.mean(hits))


def test_chance_is_what_guessing_gets_by_enumeration():
    correct = np.array([[True, False, True, False, False], [False, True, False, False, False]])
    for k in (1, 2, 4, 5):
        picks = list(itertools.combinations(range(5), k))
        rates = [np.mean([row[list(pick)].any() for pick in picks]) for row in correct]
        assert chance(correct, [k])[k] == pytest.approx(np.mean(rates))


def test_the_order_of_queries_and_answers_is_nothing():
    rng = np.random.default_rng(3)
    queries, answers, correct = unit(rng, 20, 8), unit(rng, 30, 8), several(rng, 20, 30)
    p, q = rng.permutation(20), rng.permutation(30)
    before, after = (
        recall(queries, answers, correct),
        recall(queries[p], answers[q], correct[p][:, q]),
    )
    assert before.found == pytest.approx(after.found) and before.chance == pytest.approx(
        after.chance
    )


def test_any_right_answer_counts_and_more_answers_never_hurt():
    rng = np.random.default_rng(4)
    queries, answers, correct = unit(rng, 200, 8), unit(rng, 30, 8), several(rng, 200, 30, 1)
    more = correct | several(rng, 200, 30)
    few, many = recall(queries, answers, correct), recall(queries, answers, more)
    for k in (1, 5, 10):
        assert few.found[k] < many.found[k] and few.chance[k] < many.chance[k]


def test_one_caption_of_several_pictures_is_one_text():
    captions = ["cat", "dog", "cat", "owl", "cat"]
    distinct = sorted(set(captions))
    texts = unit(np.random.default_rng(5), 3, 8)
    images = texts[[distinct.index(c) for c in captions]]
    both = retrieval(images, texts, matching(captions, distinct), at=(1, 3))
    assert both.image_to_text.found == both.text_to_image.found == {1: 1.0, 3: 1.0}
    assert both.text_to_image.queries == 3
    assert both.text_to_image.chance[1] == pytest.approx((3 + 1 + 1) / 15)


def test_across_groups_asks_in_each_other_group_and_only_what_is_there():
    rng = np.random.default_rng(6)
    concept = unit(rng, 4, 16)
    concepts, groups = [0, 1, 2, 3, 0, 1, 2, 3, 3], [*"aaaa", *"bbb", *"cc"]
    found = across_groups(concept[concepts], concepts, groups, at=(1,))
    assert set(found) == set(itertools.permutations("abc", 2)) - {("b", "c"), ("c", "b")}
    assert all(each.found[1] == 1.0 for each in found.values())
    assert found["a", "b"].queries == 3 and found["a", "b"].chance[1] == pytest.approx(1 / 3)
    assert found["c", "a"].queries == 2 and found["c", "a"].chance[1] == pytest.approx(1 / 4)
    wrong = across_groups(np.roll(concept, 1, 0)[[0, 1, 2, 3]], [0, 1, 2, 3], [*"aabb"], at=(1,))
    assert wrong == {}


def test_half_precision_embeddings_are_unit_enough():
    rows = unit(np.random.default_rng(7), 10, 64).astype(np.float16)
    assert recall(rows, rows, np.eye(10, dtype=bool), at=[1]).found[1] == 1.0


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("marks", [np.ndarray.tolist, lambda marks: marks.astype(int)])
def test_matches_may_be_lists_and_0_or_1(marks):
    rows, matches = unit(np.random.default_rng(9), 12, 4), np.eye(12, dtype=bool)
    assert retrieval(rows, rows, marks(matches)) == retrieval(rows, rows, matches)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda q, a, c: (2 * q, a, c), "queries must have length 1, but row 0 has 2"),
        (lambda q, a, c: (q, a * np.nan, c), "answers must have length 1, but row 0 has nan"),
        (lambda q, a, c: (q, a, c[:, :5]), r"must be \[n, d\], \[m, d\] and \[n, m\]"),
        (lambda q, a, c: (q, a, c & False), "query 0 has no right answer"),
        (lambda q, a, c: (q, a[:9], c[:, :9]), r"R@10 among 9 answers: k must be in 1\.\.9"),
        (lambda q, a, c: (q, a, c, (1.5,)), r"R@1\.5 among 12 answers: .* 1\.\.12, an integer"),
        (lambda q, a, c: (q, a, c * 0.5), r"must be bool \[n, m\], .* not float64 \[12, 12\]"),
        (lambda q, a, c: (q, a, 2 * c), r"must be bool \[n, m\], .* not int64 \[12, 12\]"),
        (lambda q, a, c: (q, a, c[0]), r"must be bool \[n, m\], .* not bool \[12\]"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refusals(change, sentence):
    rng = np.random.default_rng(8)
    case = change(unit(rng, 12, 4), unit(rng, 12, 4), np.eye(12, dtype=bool))
    with pytest.raises(ValueError, match=sentence):
        recall(*case)
