"""Vocabularies are read as they are published, and what isn't one is said."""

import dataclasses
import gzip
import json

import pytest

from diffusion_jax.data import BytePairs, clean, collapse

MERGES = (("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("<", "3</w>"), ("a", "t</w>"))
LIST = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in MERGES)])


@pytest.fixture
def words():
    return BytePairs.from_merges(MERGES, clean=collapse)


class TestVocabularyFile:
    lines = "\n".join(['"a list#version: 0.2', *(" ".join(pair) for pair in MERGES), "# #", ""])

    @pytest.mark.parametrize("pack", [gzip.compress, bytes])
    def test_reads_the_first_merges(self, tmp_path, words, pack):
        (tmp_path / "list").write_bytes(pack(self.lines.encode()))
        taken = BytePairs.from_vocabulary(tmp_path / "list", merges=6, clean=collapse)
        assert taken == words
        every = BytePairs.from_vocabulary(tmp_path / "list", merges=7)
        assert every.merges == (*MERGES, ("#", "#"))  # a pair, and no comment

    def test_the_settings_arrive(self, tmp_path):
        (tmp_path / "list").write_text(self.lines)
        settings = {"length": 9, "pad": 3, "truncate": True, "clean": str.strip}
        found = BytePairs.from_vocabulary(tmp_path / "list", merges=6, **settings)
        assert {key: getattr(found, key) for key in settings} == settings

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no vocabulary .*here.gz: .*openai/CLIP"):
            BytePairs.from_vocabulary(tmp_path / "here.gz")

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            (b"\x1f\x8bnonsense", "not a vocabulary of byte pairs"),
            (
                gzip.compress(b"#version\na b\n" * 99, mtime=0)[:-20],
                "not a vocabulary of byte pairs",
            ),
            (b"\xff\xfe\x00", "not a vocabulary of byte pairs"),
            (b"#version: 0.2\na b\nabc\n", "line 3 should be two symbols .*not 'abc'"),
            (b"#version: 0.2\na b\na \n", "line 3 should be two symbols .*not 'a '"),
            (b"#version: 0.2\na b\n", "holds 1 merges, and 6 are needed"),
        ],
    )
    def test_other_files(self, tmp_path, data, sentence):
        (tmp_path / "list").write_bytes(data)
        with pytest.raises(ValueError, match=sentence):
            BytePairs.from_vocabulary(tmp_path / "list", merges=6)


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path, words):
        numbers = {token: i for i, token in enumerate(words.vocabulary)}
        (tmp_path / "vocab.json").write_text(json.dumps(numbers))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
        (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
        return tmp_path

    def whole(self, folder, **changes):
        """The same as one tokenizer.json."""
        numbers = json.loads((folder / "vocab.json").read_text())
        ends = [{"content": t, "id": numbers[t]} for t in ("<|startoftext|>", "<|endoftext|>")]
        model = {"vocab": numbers, "merges": MERGES, "end_of_word_suffix": "</w>"} | changes
        (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": ends}))
        (folder / "vocab.json").unlink()

    def test_reads_both_layouts(self, folder, words):
        expected = dataclasses.replace(words, pad=words.end)
        assert BytePairs.from_folder(folder, clean=collapse) == expected
        self.whole(folder)
        assert BytePairs.from_folder(folder, clean=collapse) == expected
        self.whole_with_strings(folder)
        assert BytePairs.from_folder(folder, clean=collapse) == expected

    def whole_with_strings(self, folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["merges"] = [" ".join(pair) for pair in MERGES]
        (folder / "tokenizer.json").write_text(json.dumps(content))

    @pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
    @pytest.mark.parametrize("token", ["!", {"content": "!", "lstrip": False}])
    def test_padding_is_what_the_folder_says(self, folder, name, token):
        (folder / name).write_text(json.dumps({"pad_token": token}))
        found = BytePairs.from_folder(folder)
        assert found.pad == 0 and found.encode("!")[1] == 256
        assert BytePairs.from_folder(folder, pad=5).pad == 5

    def test_padding_where_two_files_differ(self, folder):
        """As of Stable Diffusion 2, and as transformers decides."""
        told = {"pad_token": "a"}
        (folder / "special_tokens_map.json").write_text('{"pad_token": "!"}')
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
        assert BytePairs.from_folder(folder).pad == 0
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**told, "added_tokens_decoder": {}})
        )
        assert BytePairs.from_folder(folder).pad == 64

    def test_the_settings_arrive(self, folder):
        found = BytePairs.from_folder(folder, length=9, truncate=True)
        assert (found.length, found.truncate, found.clean) == (9, True, clean)

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("vocab.json", "{", "vocab.json is not JSON"),
            ("vocab.json", "[1]", "should hold a mapping, not a list"),
            ("vocab.json", '{"a": 1}', "number its 1 tokens from 0 to 0"),
            ("vocab.json", '{"a": 0}', "no token '<|endoftext|>'"),
            ("merges.txt", f"{LIST}\nx y\n", "'x' and 'y' merge, but there is no token 'xy'"),
            ("merges.txt", "", "has 6 tokens that no merge makes, .* list of 0 merges may be cut"),
            ("merges.txt", LIST[:-7], "1 tokens that no merge makes, such as 'at</w>'"),
            ("added_tokens.json", '{"<cat-toy>": 600}', "adds '<cat-toy>' to the vocabulary"),
            ("tokenizer_config.json", '{"pad_token": "<pad>"}', "has no token '<pad>'"),
            ("tokenizer.json", '{"model": {}}', "it has no vocab and merges"),
        ],
    )
    def test_refuses(self, folder, name, content, sentence):
        (folder / name).write_text(content)
        with pytest.raises(ValueError, match=sentence):
            BytePairs.from_folder(folder)

    @pytest.mark.parametrize("number", ["0", 0.0, False, None, 1, -1, 514])
    def test_refuses_what_is_no_number_of_a_token(self, folder, number):
        numbers = json.loads((folder / "vocab.json").read_text()) | {"!": number}
        (folder / "vocab.json").write_text(json.dumps(numbers))
        with pytest.raises(ValueError, match=r"each once, as integers, but '.*' has "):
            BytePairs.from_folder(folder)

    @pytest.mark.parametrize(
        ("model", "more", "sentence"),
        [
            ({"vocab": ["a"]}, {}, r"vocab should be a mapping, not \['a'\]"),
            ({"merges": None}, {}, "merges should be a list, not None"),
            ({"merges": ["a b c"]}, {}, "a merge should be two symbols, not 'a b c'"),
            ({"merges": [["a", 1]]}, {}, r"a merge should be two symbols, not \['a', 1\]"),
            ({"merges": [3]}, {}, "a merge should be two symbols, not 3"),
            ({}, {"added_tokens": {"a": 1}}, "added_tokens should be a list, not {'a': 1}"),
            ({}, {"added_tokens": [{"content": "a"}]}, "should be a content and its id, not {'con"),
            ({}, {"added_tokens": ["a"]}, "should be a content and its id, not 'a'"),
        ],
    )
    def test_refuses_a_whole_that_is_malformed(self, folder, model, more, sentence):
        self.whole(folder, **model)
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))
        with pytest.raises(ValueError, match=f"is not a tokenizer of byte pairs: .*{sentence}"):
            BytePairs.from_folder(folder)

    def test_what_fills_up_needs_no_merge(self, folder):
        numbers = json.loads((folder / "vocab.json").read_text())
        (folder / "vocab.json").write_text(json.dumps(numbers | {"<pad>": len(numbers)}))
        with pytest.raises(ValueError, match="such as '<pad>'"):
            BytePairs.from_folder(folder)
        (folder / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
        assert BytePairs.from_folder(folder).pad == len(numbers)

    def test_refuses_another_kind(self, folder):
        self.whole(folder, end_of_word_suffix=None)
        with pytest.raises(ValueError, match="words should end in '</w>', not None"):
            BytePairs.from_folder(folder)

    def test_a_folder_without_a_tokenizer(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"needs tokenizer\.json, or vocab\.json and"):
            BytePairs.from_folder(tmp_path)
