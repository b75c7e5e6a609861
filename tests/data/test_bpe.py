"""Texts become CLIP's numbers, come back, and what can't be read is said."""

import dataclasses
import itertools
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from diffusion_jax.data import BytePairs, collapse, tfds_source
from diffusion_jax.data.bpe_symbols import alphabet, merged
from diffusion_jax.types import Tokenizer

MERGES = (("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("<", "3</w>"), ("a", "t</w>"))
END = 512 + len(MERGES) + 1
TEXTS = [
    "a red cat",
    "",
    "naïve café",
    "日本語 の 猫",
    "🙂👩\N{ZERO WIDTH JOINER}🚀",
    "it 's 1 9 8 4 !?",
    "شلام עברית",
    "é \N{COMBINING DIAERESIS}",  # a mark that composes with nothing is no letter
    "null \0 \N{BELL} \N{BYTE ORDER MARK}",
    "<| </ w > &",
]


@pytest.fixture
def words():
    return BytePairs.from_merges(MERGES, clean=collapse)


@pytest.fixture(scope="module")
def clip(vocabulary_file):
    return BytePairs.from_vocabulary(vocabulary_file)


class TestMerging:
    def test_the_best_pair_anywhere_comes_first(self):
        ranks = {("b", "c"): 0, ("a", "b"): 1, ("a", "bc"): 2}
        assert merged(list("abc"), ranks) == ["abc"]
        assert merged(list("abd"), ranks) == ["ab", "d"]

    def test_of_equals_the_leftmost(self):
        assert merged(list("aaaaa"), {("a", "a"): 0}) == ["aa", "aa", "a"]

    def test_a_later_pair_waits_for_its_parts(self):
        ranks = {("a", "a"): 0, ("aa", "aa"): 1, ("b", "aaaa"): 2}
        assert merged(list("baaaa"), ranks) == ["baaaa"]

    def test_a_pair_that_is_gone_lends_no_rank(self):
        """c d takes the c of b c, whose place b cd mustn't have before a b."""
        ranks = {("c", "d"): 0, ("b", "c"): 1, ("a", "b"): 2, ("b", "cd"): 3}
        assert merged(list("abcd"), ranks) == ["ab", "cd"]

    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_plain_algorithm(self, seed):
        """Merge every occurrence of the best pair, left to right, until there is none."""
        rng = np.random.default_rng(seed)
        tokens, pairs = list("abc"), {}
        for rank in range(30):
            pair = tuple(tokens[i] for i in rng.integers(len(tokens), size=2))
            if pair[0] + pair[1] not in tokens:
                pairs[pair] = rank
                tokens.append(pair[0] + pair[1])
        word = [str(c) for c in rng.choice(list("abc"), 60)]
        assert merged(word, pairs) == plainly(word, pairs) != word


def plainly(word, ranks):
    while True:
        best = min(itertools.pairwise(word), key=lambda p: ranks.get(p, 1e9), default=None)
        if best not in ranks:
            return word
        result, i = [], 0
        while i < len(word):
            if tuple(word[i : i + 2]) == best:
                result.append(word[i] + word[i + 1])
                i += 2
            else:
                result.append(word[i])
                i += 1
        word = result


class TestEncode:
    def test_is_a_tokenizer(self, words):
        assert isinstance(words, Tokenizer)
        assert (words.length, words.size) == (77, END + 1)
        assert (words.start, words.end) == (words.size - 2, words.size - 1) == (END - 1, END)

    def test_merges_within_words_and_marks_their_ends(self, words):
        names = [words.vocabulary[i] for i in words.encode("A cat, red<3 cats")]
        found = names[1 : names.index("<|endoftext|>")]
        assert found == [
            "a</w>",
            "cat</w>",
            ",</w>",
            "red</w>",
            "<</w>",
            "3</w>",
            "ca",
            "t",
            "s</w>",
        ]

    def test_ends_and_padding(self, words):
        tokens = words.encode("cat")
        assert tokens.dtype == np.int32 and tokens.shape == (77,)
        np.testing.assert_array_equal(tokens, [END - 1, 513, END] + [0] * 74)
        padded = dataclasses.replace(words, pad=words.end).encode("cat")
        np.testing.assert_array_equal(padded, [END - 1, 513] + [END] * 75)
        np.testing.assert_array_equal(words.encode(" \n")[:3], [END - 1, END, 0])

    def test_contractions_and_digits_are_words(self, words):
        text = "it's can't they're we've i'm you'll he'd 42"
        assert words.decode(words.encode(text)) == (
            "it 's can 't they 're we 've i 'm you 'll he 'd 4 2"
        )

    def test_the_ends_may_be_spelt_out(self, words):
        tokens = words.encode("cat<|endoftext|>red <|STARTOFTEXT|>")
        np.testing.assert_array_equal(tokens[:6], [END - 1, 513, END, 515, END - 1, END])

    def test_every_byte_has_two_tokens(self, words):
        assert len(set(alphabet())) == 256 and all(s.isprintable() and s != " " for s in alphabet())
        # CLIP's order: "!" is the first byte, and the first that ends a word comes 256 later.
        assert words.vocabulary[0] == "!" and words.vocabulary[256] == "!</w>"
        np.testing.assert_array_equal(words.encode("!")[1:2], [256])

    @pytest.mark.parametrize("text", TEXTS)
    def test_comes_back(self, words, text):
        tokens = words.encode(text)
        assert words.decode(tokens) == text
        np.testing.assert_array_equal(words.encode(words.decode(tokens)), tokens)

    def test_remembering_changes_nothing(self, words, monkeypatch):
        fresh = {text: words.encode(text).tolist() for text in TEXTS}
        monkeypatch.setattr("diffusion_jax.data.bpe._REMEMBERED", 2)
        small = dataclasses.replace(words)
        for text in TEXTS * 2 + TEXTS[::-1]:
            assert small.encode(text).tolist() == fresh[text] == words.encode(text).tolist()
        assert len(small._remembered) <= 2

    def test_a_copy_is_equal(self, words):
        copy = pickle.loads(pickle.dumps(words))  # as worker processes get it
        assert copy == words == BytePairs.from_merges(MERGES, clean=collapse)
        assert hash(copy) == hash(words) and len(repr(copy)) < 200
        assert copy != dataclasses.replace(words, pad=1)
        np.testing.assert_array_equal(copy.encode("a red cat"), words.encode("a red cat"))


class TestTooLong:
    def test_is_an_error(self, words):
        assert words.encode("cat " * 75)[-1] == words.end  # the longest that fits
        with pytest.raises(ValueError, match=r"'cat .*76 tokens, and this tokenizer takes 75"):
            words.encode("cat " * 76)

    def test_or_cut_with_one_warning(self, words):
        cut = dataclasses.replace(words, truncate=True, length=5)
        with pytest.warns(UserWarning, match="more than 3 tokens") as caught:
            tokens = cut.encode("cat red cat red")
        assert len(caught) == 1
        np.testing.assert_array_equal(tokens, [END - 1, 513, 515, 513, END])
        with pytest.warns(UserWarning):  # a second text isn't cut in silence
            cut.encode("f g h i")

    def test_python_shows_the_warning_once(self):
        # In a process of its own, because the tests' checks of types forget what was shown.
        code = (
            "from diffusion_jax.data import BytePairs, collapse\n"
            "cut = BytePairs.from_merges([], length=5, truncate=True, clean=collapse)\n"
            "for text in ('a b c d e', 'f g h i', 'j k l m n'): cut.encode(text)"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert shown.returncode == 0 and shown.stderr.count("what comes after them") == 1

    def test_a_cut_in_a_character_can_be_read(self, words):
        cut = dataclasses.replace(words, truncate=True, length=4)
        with pytest.warns(UserWarning):
            tokens = cut.encode("🙂")
        assert cut.decode(tokens) == "\N{REPLACEMENT CHARACTER}"

    def test_long_words_take_no_square(self, words):
        cut = dataclasses.replace(words, truncate=True)
        before = time.process_time()
        with pytest.warns(UserWarning):
            cut.encode("cat" * 30_000)
        assert time.process_time() - before < 10  # 0.6 s; all pairs of symbols would take hours


class TestDecode:
    def test_ends_at_the_end(self, words):
        assert words.decode([words.start, 513, words.end, 515, 0]) == "cat"
        assert words.decode(np.array([513, 515])) == "cat red" and words.decode([]) == ""

    @pytest.mark.parametrize(
        ("ids", "sentence"),
        [
            ([END + 1], rf"token {END + 1} is out of range: there are 0\.\.{END}"),
            ([1, END, -1], "token -1 is out of range"),
            ([[1, 2]], r"one text, not int64 \[1, 2\]"),
            ([1.0], r"one text, not float64 \[1\]"),
        ],
    )
    def test_refuses(self, words, ids, sentence):
        with pytest.raises(ValueError, match=sentence):
            words.decode(ids)


class TestRefuses:
    def test_half_a_surrogate_pair(self, words):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            words.encode("a \ud800")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"length": 2}, "at least 3 .*not 2"),
            ({"pad": -1}, rf"pad must be in 0\.\.{END}, not -1"),
            ({"pad": END + 1}, rf"pad must be in 0\.\.{END}, not {END + 1}"),
            ({"merges": (*MERGES, ("x", "y"))}, "'x' and 'y' merge, but there is no token 'xy'"),
            ({"vocabulary": ("a", "a")}, "each token once, but .* 1 different tokens in 2"),
            ({"vocabulary": ("a", "b")}, "no token '<|startoftext|>'"),
        ],
    )
    def test_settings(self, words, change, sentence):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(words, **change)

    def test_a_vocabulary_without_a_byte(self, words):
        lacking = tuple(token for token in words.vocabulary if token != "q</w>")
        with pytest.raises(ValueError, match="has no token 'q</w>'"):
            dataclasses.replace(words, vocabulary=lacking)


class TestPublished:
    """The vocabulary that CLIP was trained with."""

    def test_has_its_numbers(self, clip):
        assert (clip.size, clip.start, clip.end, len(clip.merges)) == (49408, 49406, 49407, 48894)
        assert clip.length == 77 and clip.pad == 0

    def test_knows_common_words(self, clip):
        text = "a photo of a cat"
        tokens = [clip.vocabulary[i] for i in clip.encode(text)[1:6]]
        assert tokens == [word + "</w>" for word in text.split()]

    @pytest.mark.parametrize("text", TEXTS)
    def test_comes_back(self, clip, text):
        plain = dataclasses.replace(clip, clean=collapse)
        assert plain.decode(plain.encode(text)) == text

    def test_encodes_a_set_quickly(self, clip, shared_data):
        source = tfds_source("emoji64", "test", shared_data)
        captions = [source[i]["caption"] for i in range(len(source))]
        before = time.process_time()
        tokens = np.stack([clip.encode(caption) for caption in captions])
        assert time.process_time() - before < 2  # 0.1 s here
        assert len(np.unique(tokens, axis=0)) == len(set(captions))
