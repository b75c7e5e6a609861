"""Words become numbers and stay themselves."""

import dataclasses
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
    marks_apart,
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


class TestFromTexts:
    TEXTS = ("A red cube.", "a blue CUBE, a ball", "The dog's well-known ball")

    def test_counts_words(self):
        words = Words.from_texts(self.TEXTS)
        assert words.vocabulary == tuple(sorted(words.vocabulary)) and words.length == 8
        assert set(words.vocabulary) == set(
            ". , a red cube blue ball the dog's well-known".split()  # noqa: SIM905
        )
        assert words == Words.from_texts(reversed(self.TEXTS)) and hash(words) == hash(words)

    def test_every_text_comes_back(self):
        words = Words.from_texts(self.TEXTS, length=12)
        for text in self.TEXTS:
            tokens = words.encode(text)
            assert tokens.shape == (12,)
            np.testing.assert_array_equal(words.encode(words.decode(tokens)), tokens)
        assert words.decode(words.encode(self.TEXTS[1])) == "a blue cube, a ball"

    def test_keeps_the_commonest(self):
        # a 3, ball 2, cube 2, and the rest once: of equals the first by the alphabet.
        found = Words.from_texts(self.TEXTS, most=2, unknown=True)
        assert found.vocabulary == ("a", "ball")
        assert Words.from_texts(self.TEXTS, least=2, unknown=True).vocabulary == (
            "a",
            "ball",
            "cube",
        )

    def test_unknown_words_share_a_number(self):
        words = Words.from_texts(self.TEXTS, least=2, unknown=True)
        assert words.size == 7
        tokens = words.encode("a violet cube!")
        np.testing.assert_array_equal(tokens, [1, 3, 6, 5, 6, 2, 0, 0])
        assert words.decode(tokens) == "a \N{REPLACEMENT CHARACTER} cube \N{REPLACEMENT CHARACTER}"
        known = dataclasses.replace(words, unknown=False)
        assert known.size == 6
        np.testing.assert_array_equal(known.encode("a cube"), words.encode("a cube"))
        with pytest.raises(ValueError, match="no word 'violet'"):
            known.encode("a violet cube!")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("Don't stop, O’Neil!", ["don't", "stop", ",", "o’neil", "!"]),
            ("'quoted' -- x", ["'", "quoted", "'", "-", "-", "x"]),
            ("cafe\N{COMBINING ACUTE ACCENT} क्षि 日本", ["café", "क्षि", "日本"]),
            ("ok👩\N{ZERO WIDTH JOINER}🚀👍🏽", ["ok", "👩\N{ZERO WIDTH JOINER}🚀", "👍🏽"]),
            ("a\r\n b\t", ["a", "b"]),
            ("", []),
        ],
    )
    def test_marks_apart(self, text, words):
        assert marks_apart(text) == words

    @pytest.mark.parametrize(
        ("texts", "settings", "sentence"),
        [
            ("a red cube", {}, "several texts, not one: 'a red cube'"),
            ([], {}, "no word that occurs at least 1 times"),
            (["a b"], {"least": 2}, "no word that occurs at least 2 times"),
            (["a a b"], {"least": 2}, "leave out 1 of 2 words: unknown=True"),
            (["a a b"], {"most": 0}, "most must be at least 1, not 0"),
            (["a a b"], {"least": 0}, "least must be at least 1, not 0"),
        ],
    )
    def test_refuses(self, texts, settings, sentence):
        with pytest.raises(ValueError, match=sentence):
            Words.from_texts(texts, **settings)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([6], r"token 6 is out of range: there are 0\.\.5"),
        ([-1], "token -1 is out of range"),
        ([[1]], r"one text, not int64 \[1, 1\]"),
        ([0.5], "not float64"),
    ],
)
def test_refuses_numbers(ids, sentence):
    with pytest.raises(ValueError, match=sentence):
        Words(("a", "b", "c"), 4).decode(ids)


def test_captions_come_back():
    source = shapes("test")
    for i in range(50):
        caption = source[i]["caption"]
        assert SHAPES_WORDS.decode(SHAPES_WORDS.encode(caption)) == caption.replace(" ,", ",")
