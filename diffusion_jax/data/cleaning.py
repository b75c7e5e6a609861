"""What is done to a text before a tokenizer cuts it."""

from __future__ import annotations

import functools
import html
import unicodedata
from typing import Any


def clean(text: str) -> str:
    """What CLIP was trained on: repaired, HTML's entities resolved, white space made single spaces.

    1. ftfy repairs what was decoded wrongly ("schÃ¶n" -> "schön") and, among other things,
       straightens quotation marks and composes accents (NFC);
    2. HTML entities are resolved twice, for texts that were escaped twice ("&amp;amp;" -> "&"),
       after ftfy has resolved them once in texts without a "<";
    3. runs of white space become one space, and those at the ends go.

    Raises:
      ModuleNotFoundError: ftfy or regex isn't installed.

    Source: the preprocessing of CLIP's published tokenizer (Radford et al. 2021, section 2.4).

    >>> clean(" schÃ¶n &amp;lt;3 ")
    'schön <3'
    """
    try:
        import ftfy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "repairing text needs ftfy: pip install ftfy, or give the tokenizer clean=collapse"
        ) from error
    return _single_spaces(html.unescape(html.unescape(ftfy.fix_text(text))).strip())


def collapse(text: str) -> str:
    """What transformers does: accents composed (NFC), runs of white space made one space.

    Mojibake, HTML's entities and curly quotation marks stay as they are.

    Raises:
      ModuleNotFoundError: regex isn't installed.

    >>> collapse(" schÃ¶n  &lt;3")
    'schÃ¶n &lt;3'
    """
    return _single_spaces(unicodedata.normalize("NFC", text))


def _single_spaces(text: str) -> str:
    return pattern(r"\s+").sub(" ", text).strip(" ")


@functools.cache
def pattern(expression: str, *, ignore_case: bool = False) -> Any:
    r"""A compiled expression that knows Unicode's classes, such as `\p{L}` for letters.

    Its white space is Unicode's, too: Python's own counts U+001C..U+001F in.
    """
    try:
        import regex
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "cutting text into words needs regex: pip install regex"
        ) from error
    return regex.compile(expression, regex.IGNORECASE if ignore_case else 0)
