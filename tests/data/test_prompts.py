"""Prompts in chunks, with weights."""

import numpy as np
import pytest

from diffusion_jax.data import BytePairs
from diffusion_jax.data.prompts import Part, prompt_parts, weighted_tokens

WORDS = BytePairs.from_merges([("c", "a"), ("ca", "t</w>")], length=6)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [Part("a cat", 1.0)]),
        ("(a cat:0.5)", [Part("a cat", 0.5)]),
        ("a (cat: -1e-1), red", [Part("a ", 1.0), Part("cat", -0.1), Part(", red", 1.0)]),
        ("a (cat) at 10:30", [Part("a (cat) at 10:30", 1.0)]),
        (r"a \(cat:2\)", [Part("a (cat:2)", 1.0)]),
        ("(a (red:2) hat:0.5)", [Part("a ", 0.5), Part("red", 1.0), Part(" hat", 0.5)]),
        ("((cat:2) a", [Part("(", 1.0), Part("cat", 2.0), Part(" a", 1.0)]),
        ("(vitamin:e) a:2) (:-)", [Part("(vitamin:e) a:2) (:-)", 1.0)]),
        ("", []),
    ],
)
def test_parts(prompt, parts):
    assert prompt_parts(prompt) == parts


def test_a_short_prompt_is_what_the_tokenizer_says():
    found = weighted_tokens(WORDS, ["a cat", "cat"])
    for row, text in enumerate(("a cat", "cat")):
        np.testing.assert_array_equal(found.ids[row, 0], WORDS.encode(text))
    assert found.ids.shape == (2, 1, 6) and (found.weights == 1).all()


def test_a_long_prompt_fills_chunks():
    words = ["a", "cat", "a", "cat", "a", "cat", "a"]
    found = weighted_tokens(WORDS, [" ".join(words), "cat"])
    assert found.ids.shape == (2, 2, 6)
    inside = found.ids[0][(found.ids[0] != WORDS.start) & (found.ids[0] != WORDS.end)]
    whole = [WORDS.encode(w)[1] for w in words]
    np.testing.assert_array_equal(inside[: len(words)], whole)
    np.testing.assert_array_equal(found.ids[0, :, 0], WORDS.start)
    assert found.ids[0, 0, 5] == WORDS.end and found.ids[1, 1, 1] == WORDS.end  # an empty chunk


def test_weights_stand_at_their_tokens():
    found = weighted_tokens(WORDS, ["a (cat:1.5) a"], chunks=2)
    np.testing.assert_allclose(found.weights[0, 0], [1, 1, 1.5, 1, 1, 1])
    plain = weighted_tokens(WORDS, ["a cat a"], chunks=2)
    np.testing.assert_array_equal(found.ids, plain.ids)


def test_refusals():
    with pytest.raises(ValueError, match="5 tokens; there is room for 4 in 1 chunks"):
        weighted_tokens(WORDS, ["a a a a a"], chunks=1)
    with pytest.raises(ValueError, match="'1e999' in a prompt is no finite weight"):
        prompt_parts("a (cat:1e999)")
    with pytest.raises(ValueError, match="one prompt at least"):
        weighted_tokens(WORDS, [])
