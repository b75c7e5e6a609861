"""Filters keep what matches, and T-MARS leaves out what matches by its letters alone."""

import numpy as np
import pytest

from diffusion_jax.data import (
    SHAPES_WORDS,
    Source,
    StrokeDetector,
    above,
    caption_alone,
    captioned,
    clip_filter,
    emoji_texts,
    from_arrays,
    intersection,
    similarities,
    subset,
    t_mars,
    write,
)

GROUNDS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200)}


class Captioned:
    """Pictures with captions: of three kinds, told apart by `kinds`.

    0: the caption's colour is the ground. 1: another ground, but the caption is written on it.
    2: another ground, and nothing written.
    """

    name, image_shape, classes = "captioned", (64, 64, 3), None

    def __init__(self, n=30):
        rng, names = np.random.default_rng(0), list(GROUNDS)
        self.kinds, self.records, self.letters = np.arange(n) % 3, [], {}
        for kind in self.kinds:
            right, wrong = rng.permutation(3)[:2]
            shown = names[right if kind == 0 else wrong]
            picture = np.broadcast_to(np.uint8(GROUNDS[shown]), (64, 64, 3)).copy()
            caption = names[right]
            if kind == 1:
                picture = write(
                    picture, f"{caption} {caption}", at=(6, 20), colour=(255, 255, 255)
                ).picture
                self.letters[picture.tobytes()] = caption
            self.records.append({"image": picture, "caption": caption})

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]

    def encode_texts(self, texts):
        return np.eye(3)[[list(GROUNDS).index(text) for text in texts]]

    def encode_images(self, pixels):
        """Reads letters where it knows them, and sees the ground's colour else."""
        levels = np.rint((np.asarray(pixels) + 1) * 127.5).astype(np.uint8)
        grounds = np.array(list(GROUNDS.values()), float)
        rows = []
        for picture in levels:
            distance = np.abs(np.median(picture, axis=(0, 1)) - grounds).sum(1)
            number = distance.argmin()
            if picture.tobytes() in self.letters:
                number = list(GROUNDS).index(self.letters[picture.tobytes()])
            rows.append(np.eye(3)[number] * 0.8 + np.eye(3)[(number + 1) % 3] * 0.6)
        return np.stack(rows)


def test_a_clip_filter_keeps_letters_and_t_mars_does_not():
    source = Captioned()
    assert isinstance(source, Source)
    scores = similarities(source, source.encode_images, source.encode_texts, batch=7)
    assert np.all(scores[source.kinds < 2] == pytest.approx(0.8))
    assert set(source.kinds[clip_filter(scores, 2 / 3)]) == {0, 1}
    encoders = source.encode_images, source.encode_texts
    kept = t_mars(source, *encoders, StrokeDetector(), 1 / 3, batch=7)
    assert set(source.kinds[kept]) == {0} and len(kept) == 10
    both = intersection(clip_filter(scores, 2 / 3), kept)
    np.testing.assert_array_equal(both, kept)
    assert {subset(source, both)[i]["caption"] for i in range(10)} <= set(GROUNDS)


def test_batches_are_nothing():
    source = Captioned()
    one, many = (
        similarities(source, source.encode_images, source.encode_texts, batch=b) for b in (1, 64)
    )
    np.testing.assert_allclose(one, many, atol=1e-12)


def test_a_fraction_keeps_the_best_whatever_their_order():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=101)
    kept = clip_filter(scores, 0.3)
    assert len(kept) == 30 and np.all(np.diff(kept) > 0)
    rest = np.setdiff1d(np.arange(101), kept)
    assert scores[kept].min() > scores[rest].max()
    p = rng.permutation(101)
    np.testing.assert_array_equal(np.sort(p[clip_filter(scores[p], 0.3)]), kept)
    np.testing.assert_array_equal(clip_filter(np.ones(4), 0.5), [0, 1])
    np.testing.assert_array_equal(above(scores, scores[kept].min()), kept)


def test_intersection_is_in_every_filter():
    rng = np.random.default_rng(1)
    filters = [np.flatnonzero(rng.random(60) < 0.7) for _ in range(3)]
    kept = intersection(*filters)
    assert set(kept) == set(filters[0]) & set(filters[1]) & set(filters[2])
    assert np.all(np.diff(kept) > 0)
    np.testing.assert_array_equal(intersection(filters[0]), filters[0])


def test_a_subset_is_a_source_of_the_same_records():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    whole = from_arrays("dots", images, np.arange(5))
    part = subset(subset(whole, [4, 3, 0, 3]), np.array([3, 0]))
    assert isinstance(part, Source) and len(part) == 2
    assert (part.name, part.image_shape, part.classes) == ("dots", (4, 4, 1), 5)
    assert [part[i]["label"] for i in range(2)] == [3, 4]
    assert [record["label"] for record in part] == [3, 4]  # ends, as a sequence does


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([], "at least one"),
        (np.array([0.0]), "must be integers"),
        ([0, 5], r"dots: indices must be in 0\.\.4, but they span 0\.\.5"),
        ([-1], r"they span -1\.\.-1"),
    ],
)
def test_subsets_refuse(indices, sentence):
    with pytest.raises(ValueError, match=sentence):
        subset(from_arrays("dots", np.zeros((5, 4, 4, 1), np.uint8)), indices)


def test_refusals():
    source = Captioned()
    plain = from_arrays("plain", np.zeros((2, 4, 4, 3), np.uint8))
    for call, sentence in (
        (lambda: clip_filter(np.ones(3), 0.0), r"must be in \(0, 1\]"),
        (lambda: clip_filter(np.array([1, np.nan]), 0.5), "score 1 isn't finite"),
        (lambda: intersection(), "at least one filter"),
        (
            lambda: similarities(plain, source.encode_images, source.encode_texts),
            "plain has no captions; its records hold image",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


@pytest.mark.parametrize(
    ("scores", "kept"),
    [(np.array([0, 1, 2, 255], np.uint8), [2, 3]), (np.array([-128, 1, 2, 0], np.int8), [1, 2])],
)
def test_scores_of_few_bits_do_not_wrap(scores, kept):
    np.testing.assert_array_equal(clip_filter(scores, 0.5), kept)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: clip_filter(s[:, None], 0.5), r"scores must be \[n\], not \[10, 1\]"),
        (lambda s: above(s.reshape(5, 2), 0.5), r"scores must be \[n\], not \[5, 2\]"),
        (lambda s: above(s, np.nan), "threshold must be a number, not NaN"),
        (lambda s: clip_filter(s, 0.01), "0.01 keeps none of 10 pairs"),
        (lambda s: intersection(s > 0.5, s > 0.3), r"not bool \[10\]; np.flatnonzero makes"),
        (lambda s: intersection(s), r"integers \[k\], not float64 \[10\]"),
    ],
)
def test_what_is_no_scores_and_no_indices_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(np.linspace(0, 1, 10))


@pytest.mark.parametrize("fraction", [0.0, 1.1, 0.01])
def test_a_fraction_is_refused_before_anything_is_encoded(fraction):
    source, calls = Captioned(), []
    with pytest.raises(ValueError, match="fraction"):
        t_mars(source, calls.append, calls.append, StrokeDetector(), fraction)
    assert calls == []


@pytest.mark.parametrize("texts", [caption_alone, emoji_texts])
def test_texts_of_a_source_without_captions_are_refused(texts):
    plain = from_arrays("plain", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="plain: the record has no feature 'caption'; it holds im"):
        captioned(plain, SHAPES_WORDS, texts, 1)
