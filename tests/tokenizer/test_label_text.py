"""The ids of a classifier's text are those of transformers on the exported folder, which knows split_special_tokens."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from conversations import pieces_of
from hypothesis import given, settings
from hypothesis import strategies as st
from other_models import style
from small_models import LINES

from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

NAMES = ("bpe", "wordpiece", "gpt2", "llama-2", "llama-3", "qwen3")
CONTROLS = ["[UNK]", "<|EOS|>", "<|endoftext|>", "<|user|>", "<|pad|>", "<unk>", "</s>", "<s>", "<|eot_id|>", "oak"]


@cache
def label_text(name: str) -> LabelText:
    if name in ("bpe", "wordpiece"):
        return LabelText(train(lambda: LINES, name, 400, entries=["<unk>"]))  # type: ignore[arg-type]
    return LabelText(Tokenizer.from_json(style(name)[0], as_it_is=True))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each tokenizer as transformers reads it from a classifier's folder."""
    place = tmp_path_factory.mktemp("classifiers")
    for name in NAMES:
        write(place / name, label_text(name).tokenizer)
    return {name: transformers.AutoTokenizer.from_pretrained(place / name) for name in NAMES}


def write(folder: Path, tokenizer: Tokenizer) -> None:
    folder.mkdir()
    tokenizer.save(folder / "tokenizer.json")
    settings = {**tokenizer.transformers_config(128), "split_special_tokens": True, "padding_side": "right"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}), "utf-8")


@pytest.mark.parametrize("name", NAMES)
@given(texts=st.lists(st.text(max_size=30) | pieces_of(CONTROLS), min_size=1, max_size=3))
@settings(max_examples=80)
def test_ids_are_those_of_transformers_for_the_exported_classifier(
    exported: dict[str, Any], name: str, texts: list[str]
) -> None:
    encoded = label_text(name).encode(texts)
    assert encoded == exported[name](texts)["input_ids"]
    tokenizer = label_text(name).tokenizer
    for ids in encoded:
        start = tokenizer.prompt_start
        assert start
        assert ids[: len(start)] == start
        assert not tokenizer.control_ids.intersection(ids[len(start) :])


def test_the_spelled_out_unknown_token_is_text_to_a_classifier_and_not_in_documents() -> None:
    words = label_text("wordpiece")
    (ids,) = words.encode("the [UNK] oak")
    (document,) = words.tokenizer.encode_documents("the [UNK] oak")
    assert words.tokenizer.unknown_id in document
    assert len(ids) - 1 > len(document)
    assert ids[0] == words.tokenizer.separator_id


def test_a_tokenizer_that_puts_nothing_before_a_text_gets_the_separator() -> None:
    given = Tokenizer.from_json(style("gpt2")[0], as_it_is=True)
    assert given.encode_prompt("") == []
    assert label_text("gpt2").encode("") == [[given.separator_id]]
    assert label_text("gpt2").tokenizer.reads_like(given)


def test_a_tokenizer_that_is_used_as_it_is_puts_nothing_before_a_text() -> None:
    """The label head of another program was trained so. An empty text is the separator then, not nothing."""
    given = Tokenizer.from_json(style("gpt2")[0], as_it_is=True)
    kept = LabelText(given, as_it_is=True)
    assert kept.encode(["the oak", ""]) == [given.encode_documents("the oak")[0], [given.separator_id]]
    assert kept.tokenizer.fingerprint == given.fingerprint
