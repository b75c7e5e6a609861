"""The files that byte-pair vocabularies are published in: OpenAI's list, and checkpoint folders."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.data.bpe_symbols import alphabet

Merges = tuple[tuple[str, str], ...]

START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"


class Published(NamedTuple):
    """What a checkpoint's folder says of its tokenizer.

    Attributes:
      merges: the pairs that become one, first come, first merged.
      vocabulary: the tokens; a token's number is its place.
      pad: the token that fills up, or None where the folder names none.
    """

    merges: Merges
    vocabulary: tuple[str, ...]
    pad: str | None


def read_merges(path: str | os.PathLike[str], count: int | None = None) -> Merges:
    """The pairs of a list of merges, plain or gzipped: a line with a version, then a pair a line.

    Args:
      path: the list.
      count: how many pairs to take from its beginning; all when not given.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it isn't such a list, or holds fewer than `count` pairs.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no vocabulary {file}: CLIP's is clip/bpe_simple_vocab_16e6.txt.gz in the "
            "repository openai/CLIP on GitHub"
        )
    data = file.read_bytes()
    try:
        lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode().split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a vocabulary of byte pairs: {error}") from error
    # A header, not a comment: "#" begins pairs as well.
    first = 1 if "#version" in lines[0] else 0
    last = len(lines) if count is None else first + count
    pairs = []
    for number, line in enumerate(lines[first:last], first + 1):
        if not line.strip():
            continue
        if len(line.split(" ")) != 2 or not all(line.split(" ")):
            raise ValueError(
                f"{file} is not a vocabulary of byte pairs: line {number} should be two symbols "
                f"with a space between them, not {line[:40]!r}"
            )
        pairs.append(_pair(line))
    if count is not None and len(pairs) < count:
        raise ValueError(f"{file} holds {len(pairs)} merges, and {count} are needed")
    return tuple(pairs)


def read_folder(path: str | os.PathLike[str]) -> Published:
    """The tokenizer of a checkpoint's folder: tokenizer.json, else vocab.json and merges.txt.

    Raises:
      FileNotFoundError: it has neither.
      ValueError: they aren't CLIP's kind of byte pairs, tokens aren't numbered 0, 1, 2, ..., tokens
        were added to the vocabulary, or no merge makes one, as when merges.txt was cut short.
    """
    folder = Path(path)
    if (folder / "tokenizer.json").is_file():
        merges, numbers = _whole(folder / "tokenizer.json")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        merges, numbers = read_merges(folder / "merges.txt"), _json(folder / "vocab.json")
    else:
        raise FileNotFoundError(
            f"{folder} holds no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt, "
            "as transformers' save_pretrained writes them"
        )
    if (folder / "added_tokens.json").is_file():
        numbers = _extended(numbers, _json(folder / "added_tokens.json"), folder)
    free = set(range(len(numbers)))
    for token, number in numbers.items():
        if type(number) is not int or number not in free:
            raise ValueError(
                f"the vocabulary in {folder} should number its {len(numbers)} tokens from 0 to "
                f"{len(numbers) - 1}, each once, as integers, but {token!r} has {number!r:.60}"
            )
        free.remove(number)
    pad = _pad(folder)
    # A merge makes each token but the ends, what fills up, and single bytes.
    single = {symbol + ending for symbol in alphabet() for ending in ("", END_OF_WORD)}
    unmade = numbers.keys() - single - {left + right for left, right in merges} - {START, END, pad}
    if unmade:
        raise ValueError(
            f"the vocabulary in {folder} has {len(unmade)} tokens that no merge makes, such as "
            f"{min(unmade)!r}; its list of {len(merges)} merges may be cut short"
        )
    return Published(merges, tuple(sorted(numbers, key=numbers.__getitem__)), pad)


def _whole(file: Path) -> tuple[Merges, dict[str, int]]:
    """Merges and numbers of a tokenizer.json."""
    content = _json(file)
    model = content.get("model")
    if not isinstance(model, dict) or not {"vocab", "merges"} <= set(model):
        raise ValueError(f"{file} is not a tokenizer of byte pairs: it has no vocab and merges")
    if model.get("end_of_word_suffix") != END_OF_WORD:
        raise ValueError(
            f"{file} is not CLIP's kind of byte pairs: words should end in {END_OF_WORD!r}, not "
            f"{model.get('end_of_word_suffix')!r}"
        )
    added = content.get("added_tokens") or []
    try:
        _require(isinstance(model["vocab"], dict), "vocab", "a mapping", model["vocab"])
        _require(isinstance(model["merges"], list), "merges", "a list", model["merges"])
        _require(isinstance(added, list), "added_tokens", "a list", added)
        for token in added:
            named = isinstance(token, dict) and isinstance(token.get("content"), str)
            _require(named and "id" in token, "an added token", "a content and its id", token)
        merges = tuple(_pair(pair) for pair in model["merges"])
    except ValueError as error:
        raise ValueError(f"{file} is not a tokenizer of byte pairs: {error}") from error
    numbers = {token["content"]: token["id"] for token in added}
    return merges, _extended(model["vocab"], numbers, file)


def _extended(numbers: dict[str, int], added: dict[str, int], where: Path) -> dict[str, int]:
    beyond = [token for token in added if token not in numbers and token not in (START, END)]
    if beyond:
        raise ValueError(
            f"{where} adds {beyond[0]!r} to the vocabulary, and BytePairs knows only its merges, "
            f"{START!r} and {END!r}"
        )
    return numbers | added


def _pad(folder: Path) -> str | None:
    names = ("tokenizer_config.json", "special_tokens_map.json")
    found = {name: _json(folder / name) for name in names if (folder / name).is_file()}
    # The second counts for transformers where the first doesn't list added tokens, and did in 2022:
    # of Stable Diffusion 2 they differ.
    modern = "added_tokens_decoder" in found.get(names[0], {})
    for name in names if modern else reversed(names):
        if name in found:
            token = found[name].get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return None


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} should hold a mapping, not a {type(content).__name__}")
    return content


def _pair(pair: Any) -> tuple[str, str]:
    """("a", "b") of "a b" or ["a", "b"]: tokenizer.json has had both forms."""
    match pair.split(" ") if isinstance(pair, str) else pair:
        case [str(left), str(right)]:
            return left, right
        case _:
            raise ValueError(f"a merge should be two symbols, not {pair!r:.60}")


def _require(right: bool, name: str, wanted: str, found: Any) -> None:
    if not right:
        raise ValueError(f"{name} should be {wanted}, not {found!r:.60}")
