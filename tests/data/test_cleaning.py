"""Texts are cleaned as CLIP's were, or only as far as transformers does."""

import pytest

from diffusion_jax.data import BytePairs, clean, collapse


class TestCleaning:
    @pytest.mark.parametrize(
        ("text", "cleaned"),
        [
            ("  a \t red\n\ncube ", "a red cube"),
            ("rock &amp; roll", "rock & roll"),
            ("rock &amp;amp; roll", "rock & roll"),
            ("&amp;lt; &amp;amp;lt;", "< <"),
            ("< &amp;lt; &amp;amp;lt;", "< < &lt;"),  # HTML to ftfy, which leaves it alone
            ("schÃ¶n", "schön"),
            ("itâ€™s", "it's"),
            ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
            ("a\N{NO-BREAK SPACE}b\N{IDEOGRAPHIC SPACE}c", "a b c"),
            ("", ""),
        ],
    )
    def test_cleans(self, text, cleaned):
        assert clean(text) == cleaned

    @pytest.mark.parametrize(
        ("text", "cleaned"),
        [
            ("  a \t red\n\ncube ", "a red cube"),
            ("rock &amp; roll", "rock &amp; roll"),
            ("schÃ¶n", "schÃ¶n"),
            ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ],
    )
    def test_collapses(self, text, cleaned):
        assert collapse(text) == cleaned

    def test_is_chosen_by_value(self):
        texts = ("schÃ¶n &amp; gut", "schön & gut")
        cleaned = BytePairs.from_merges([])
        assert [cleaned.decode(cleaned.encode(t)) for t in texts] == [texts[1]] * 2
        for other in (collapse, str.strip):
            words = BytePairs.from_merges([], clean=other)
            assert words.decode(words.encode(texts[0])) != texts[1]
