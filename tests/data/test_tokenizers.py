"""Words become numbers and stay themselves."""

import itertools

import numpy as np
import pytest

from diffusion_jax.data import (
    SHAPES_WORDS,
    Described,
    Description,
    Source,
    Words,
    digits,
    shapes,
    tokenized,
    write_caption,
)


def test_encodes():
    words = Words(("a", ",", "cube", "red"), 8)
    tokens = words.encode("a red cube, a")
    assert tokens.dtype == np.int32 and words.size == 7
    np.testing.assert_array_equal(tokens, [1, 3, 6, 5, 4, 3, 2, 0])
    np.testing.assert_array_equal(words.encode(""), [1, 2, 0, 0, 0, 0, 0, 0])


def test_captions_can_be_told_apart():
    source = shapes("train")
    captions = {source[i]["caption"] for i in range(100)}
    codes = {SHAPES_WORDS.encode(caption).tobytes() for caption in captions}
    assert len(codes) == len(captions)


def test_the_longest_caption_fits_and_no_more():
    thing = Described("red", "cube", "small")
    longest = max(
        (
            write_caption(Description((thing,) * count, relation))
            for count, relation in itertools.product((2, 3), (None, "above", "left of"))
        ),
        key=lambda caption: len(caption.split()),
    )
    assert len(longest.split()) == SHAPES_WORDS.length - 2
    assert SHAPES_WORDS.encode(longest)[-1] == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a reed cube", "no word 'reed'; did you mean 'red'?"),
        ("A red cube", "no word 'A'; did you mean 'a'?"),
        ("a zzzz cube", "no word 'zzzz'; it has 24 other words"),
        ("a " * 17, "has 17 words, and this tokenizer takes 16"),
    ],
)
def test_refuses_texts(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        SHAPES_WORDS.encode(text)


@pytest.mark.parametrize(
    ("vocabulary", "length", "sentence"),
    [(("a", "b", "a"), 8, "'a' comes again"), (("a",), 2, "at least 3 .*not 2")],
)
def test_refuses_vocabularies(vocabulary, length, sentence):
    with pytest.raises(ValueError, match=sentence):
        Words(vocabulary, length)


class TestTokenized:
    def test_gains_tokens(self):
        plain = shapes("test")
        source = tokenized(plain, SHAPES_WORDS)
        assert isinstance(source, Source) and len(source) == len(plain)
        assert (source.name, source.image_shape, source.classes) == ("shapes", (16, 16, 3), None)
        record = source[7]
        np.testing.assert_array_equal(record["tokens"], SHAPES_WORDS.encode(record["caption"]))
        np.testing.assert_array_equal(record["image"], plain[7]["image"])
        assert "text" in tokenized(plain, SHAPES_WORDS, as_="text")[0]

    def test_refuses_features(self):
        with pytest.raises(ValueError, match="no text feature 'title'; it has 'caption'"):
            tokenized(shapes(), SHAPES_WORDS, "title")
        with pytest.raises(ValueError, match="digits has no text feature 'caption'; it has none"):
            tokenized(digits(), SHAPES_WORDS)
        with pytest.raises(ValueError, match="already has a feature 'boxes'"):
            tokenized(shapes(), SHAPES_WORDS, as_="boxes")
