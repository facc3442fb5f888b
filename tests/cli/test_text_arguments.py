"""Sources and settings on one command line; the advice in each message about text works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acorn.cli.text_arguments import split_settings, text_config
from acorn.config_files import IDLE_KEYS
from acorn.errors import UsageError


def test_an_argument_with_an_equals_sign_is_a_setting_unless_it_is_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data.text_field=body").write_text("text")
    arguments = ["a.txt", "data.errors=skip", "data.text_field=body", "my/*.txt", "x=1"]
    assert split_settings(arguments) == (["a.txt", "data.text_field=body", "my/*.txt"], ["data.errors=skip", "x=1"])


def test_options_sources_and_settings_are_combined() -> None:
    config = text_config(
        "acorn tokenizer train",
        ["a=b.txt"],
        ["c.txt", "data.errors=skip", "tokenizer.vocab_size=300"],
        {"data.clean": "wikitext", "tokenizer.kind": None},
    )
    assert config.data.source == ("a=b.txt", "c.txt")
    assert (config.data.clean, config.data.errors) == ("wikitext", "skip")
    assert (config.tokenizer.kind, config.tokenizer.vocab_size) == ("bpe", 300)
    assert text_config("acorn data prepare", [], ["data.source=a.txt"], {}).data.source == ("a.txt",)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ([], ["No text is named", "--input"]),
        (["a.txt", "data.clean=none"], ["data.clean is given twice"]),
        (["a.txt", "data.source=b.txt"], ["data.source is given twice"]),
        (["a.txt", "data.text_feld=b"], ["unknown key data.text_feld; did you mean data.text_field?"]),
        (["a.txt", "text_field=b"], ["unknown key text_field; did you mean data.text_field?"]),
        (["a.txt", "data.erors=skip", "train.steps=3"], ["mean data.errors?", "train.steps has no effect here"]),
        (["a.txt", "data.shards=x"], ["data.shards has no effect here", "acorn data prepare"]),
        (["a.txt", "tokenizer.kind=bpe"], ["tokenizer.kind has no effect here"]),
        (["a.txt", "data.errors=ignore"], ["data.errors", "'strict', 'replace' or 'skip'"]),
        (["a.txt", "=3"], ["'=3' is not a setting"]),
        (["a.txt", ""], ['"" in a list names no text']),
    ],
)  # fmt: skip
def test_invalid_text_arguments_are_refused(more: list[str], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        text_config("acorn data prepare", [], more, {"data.clean": "wikitext"})
    for part in parts:
        assert part in str(caught.value)


TEXTS = {
    "field": ("t.jsonl", b'{"body": "the cat saw %d dogs"}\n', "set data.text_field", "data.text_field=body"),
    "errors": ("t.txt", b"the caf\xe9 saw %d dogs\n", 'data.errors to "replace"', "data.errors=replace"),
    "encoding": ("t.txt", b"the caf\xe9 saw %d dogs\n", "data.encoding=", "data.encoding=latin-1"),
    "skip": ("t.jsonl", b'{"text": "the cat saw %d dogs"}\n{bad %d\n', "data.errors=skip", "data.errors=skip"),
    "row": ("t.txt", b"the cat saw %d dogs\n", 'use "auto", "line", "block" or "file"', "data.document=line"),
}  # fmt: skip
"""What is wrong with a text -> its name, the pattern of its lines, the advice, and the arguments that follow it."""

WRONG = {"row": ["data.document=row"]}
"""Settings that follow the advice."""


def command(name: str, source: Path, tokenizer: Path, run: Path, out: Path) -> list[object]:
    return {
        "tokenizer train": ["tokenizer", "train", "--vocab-size", 300, "--input", source, "--out", out],
        "data prepare": ["data", "prepare", "--tokenizer", tokenizer, "--input", source, "--out", out],
        "evaluate": ["evaluate", run, "--input", source],
    }[name]  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["tokenizer train", "data prepare", "evaluate"])
def test_advice_about_a_text_can_be_followed(acorn, run: Path, tmp_path: Path, name: str, kind: str) -> None:
    """With the advice added to the command that gave it, the command works."""
    file, line, advice, typed = TEXTS[kind]
    source = tmp_path / file
    source.write_bytes(b"".join(line.replace(b"%d", b"%d" % n) for n in range(250)))
    words = command(name, source, run / "tokenizer.json", run, tmp_path / "out")
    done = acorn(*words, *WRONG.get(kind, []))
    assert done.returncode in (2, 3), done.stderr
    assert advice in done.stderr
    assert not (tmp_path / "out").exists()
    done = acorn(*words, typed, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_suggested_vocabulary_size_is_accepted(acorn, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    done = acorn("tokenizer", "train", text_file, "tokenizer.vocab_size=30", "--out", out)
    assert "set tokenizer.vocab_size to 273 or more" in done.stderr
    done = acorn("tokenizer", "train", text_file, "tokenizer.vocab_size=273", "--out", out, "--json")
    assert json.loads(done.stdout)["vocab_size"] == 273


def test_a_file_whose_name_looks_like_a_setting_is_scored(acorn, run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Sentence 5 says.\n")
    Path("b=c.txt").write_text("Sentence 6 says.\n")
    done = acorn("evaluate", run, "--input", "a.txt", "b=c.txt", "--json")
    assert (json.loads(done.stdout)["documents"], json.loads(done.stdout)["bytes"]) == (2, 34)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--input", ""), ("An empty string is not a source of text", "--input")),
        (("--input", "a.txt", ""), ("An empty string is not a source of text",)),
        (("--tasks", ""), ("'' contains an empty name",)),
        (("--tasks", "a,,b"), ("'a,,b' contains an empty name",)),
        (("data.errors=skip",), ("needs --input",)),
        (("other.txt",), ("'other.txt' needs --input", "name the text to score with --input")),
        (("--input", "a.txt", "data.valid_fraction=0.5"), ("data.valid_fraction has no effect here",)),
    ],
)
def test_evaluate_refuses_before_it_loads_a_model(acorn, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    done = acorn("evaluate", "nowhere", *options)
    assert (done.returncode, done.stdout) == (2, "")
    for part in parts:
        assert part in done.stderr


def test_every_key_without_effect_exists() -> None:
    from acorn.config_files import flatten, load_config

    assert set().union(*IDLE_KEYS.values()) <= set(flatten(load_config()))
