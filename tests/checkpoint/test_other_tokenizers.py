"""Tokenizers of other people's models: prompts and texts are those of transformers' AutoTokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from other_models import TEXTS, make_model, style

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import end_ids, read_model_folder, write_model_folder
from acorn.errors import DamageError, InputError
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.generate.streaming import TextStream
from acorn.tokenizer.tokenizer import Tokenizer

STYLES = ("gpt2", "llama-2", "llama-3", "qwen3")
PROMPTS = ["The keeper 你好 12345 don't", "", "two  spaces\n\nx", "a<|endoftext|>b</s><|eot_id|>c", "🙂 नमस्ते"]


@pytest.mark.parametrize("name", STYLES)
def test_prompts_and_greedy_texts_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = make_model(tmp_path / "model", name)
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model")
    plain = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    for prompt in PROMPTS:
        assert loaded.tokenizer.encode_prompt(prompt) == plain(prompt)["input_ids"]
        # transformers 5 gives Llama-2's class rules of its own after a special token, whatever tokenizer.json says.
        assert (name == "llama-2" and "</s>" in prompt) or plain(prompt)["input_ids"] == auto(prompt)["input_ids"]
    pieces: list[str] = []
    (result,) = generate(
        loaded.model,
        loaded.tokenizer,
        [PROMPTS[0]],
        SamplingSettings(30, greedy=True),
        end_ids=loaded.end_ids,
        on_text=lambda _, piece: pieces.append(piece),
    )
    inputs = auto(PROMPTS[0], return_tensors="pt")
    padding = list(range(len(auto), theirs.config.vocab_size))
    made = theirs.generate(**inputs, max_new_tokens=30, do_sample=False, suppress_tokens=padding)[0].tolist()
    assert [*result.prompt_ids, *result.new_ids] == made
    assert result.text == auto.decode(made, skip_special_tokens=True)
    assert "".join(pieces) == result.completion


@pytest.mark.parametrize("name", STYLES)
def test_documents_begin_as_in_the_models_own_training(name: str) -> None:
    tokenizer = Tokenizer.from_json(style(name)[0], as_it_is=True)
    start = [tokenizer.piece(token_id) for token_id in tokenizer.document_start]
    assert (
        start
        == {
            "gpt2": ["<|endoftext|>"],
            "qwen3": ["<|endoftext|>"],
            "llama-2": ["</s>", "<s>"],
            "llama-3": ["<|end_of_text|>", "<|begin_of_text|>"],
        }[name]
    )
    assert tokenizer.lossless == (name in ("gpt2", "llama-3"))
    adapted = Tokenizer.from_json(style(name)[0])
    assert adapted.reads_like(tokenizer)
    assert adapted.encode_prompt("")[-1] == adapted.document_start[-1]


@given(st.text(alphabet="ab 你好界🙂🙃é\n", max_size=12), st.integers(0, 10))
@settings(deadline=None)
def test_streamed_single_byte_tokens_give_the_whole_text(text: str, cut: int) -> None:
    """A single-byte token can change how the bytes before it decode; returned text never changes."""
    tokenizer = Tokenizer.from_json(style("llama-2")[0], as_it_is=True)
    ids = tokenizer.encode_prompt(text)
    new = ids[1:-cut] if cut else ids[1:]
    stream = TextStream(tokenizer, ids[:1])
    pieces = [stream.add(token) for token in new]
    pieces.append(stream.finish())
    assert "".join(pieces) == stream.completion == tokenizer.decode([ids[0], *new])[len(tokenizer.decode(ids[:1])) :]


def test_a_chat_model_stops_at_its_end_of_turn(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen3")
    turn, document = (
        model.config.eos_token_id,
        tokenizers.Tokenizer.from_str(style("qwen3")[0]).token_to_id("<|endoftext|>"),
    )
    assert end_ids(tmp_path / "model") == (turn,)
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [turn, document]}))
    loaded = load(tmp_path / "model")
    assert loaded.end_ids == (turn, document)
    assert loaded.tokenizer.separator_id == document
    ids = loaded.tokenizer.encode_prompt("The keeper")
    with torch.no_grad():
        loaded.model.head.weight[turn] = 50 * loaded.model.hidden(torch.tensor([ids]))[0, -1]
    (result,) = generate(
        loaded.model, loaded.tokenizer, ["The keeper"], SamplingSettings(9, greedy=True), end_ids=loaded.end_ids
    )
    assert (result.new_ids, result.finish_reason, result.completion) == ([turn], "eos", "")
    for wrong in ("seven", [True], -1):
        path.write_text(json.dumps({"eos_token_id": wrong}))
        with pytest.raises(DamageError, match="eos_token_id"):
            end_ids(tmp_path / "model")


def test_padding_rows_are_removed(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen3", padding=9)
    found = read_model_folder(tmp_path / "model")
    config, weights, tokenizer = found.config, found.weights, found.tokenizer
    assert config.vocab_size == tokenizer.vocab_size == model.config.vocab_size - 9
    assert weights["head.weight"].size(0) == config.vocab_size


def test_a_written_folder_names_both_end_tokens(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "llama-2")
    loaded = load(tmp_path / "model")
    write_model_folder(tmp_path / "back", loaded.model, loaded.tokenizer, "card")
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert (auto.bos_token, auto.eos_token, auto.unk_token) == ("<s>", "</s>", "<unk>")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["bos_token_id"] == auto.bos_token_id
    for text in (*PROMPTS, *TEXTS):
        assert auto(text)["input_ids"] == loaded.tokenizer.encode_prompt(text)


def test_vocab_and_merges_files_of_gpt2_are_read(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "gpt2", padding=0)
    expected = load(tmp_path / "model").tokenizer
    spec = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    vocabulary = {**spec["model"]["vocab"], "<|endoftext|>": expected.separator_id}
    (tmp_path / "model" / "vocab.json").write_text(json.dumps(vocabulary))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    (tmp_path / "model" / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]))
    (tmp_path / "model" / "tokenizer.json").unlink()
    tokenizer = load(tmp_path / "model").tokenizer
    assert all(tokenizer.encode_prompt(text) == expected.encode_prompt(text) for text in (*PROMPTS, *TEXTS))

    (tmp_path / "model" / "merges.txt").write_text("no merges\nat all here\n")
    with pytest.raises(DamageError, match="vocabulary"):
        load(tmp_path / "model")


def test_a_vocabulary_without_merges_is_not_enough(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "gpt2")
    (tmp_path / "model" / "tokenizer.json").rename(tmp_path / "model" / "vocab.json")
    with pytest.raises(DamageError, match=r"cannot use vocab\.json without") as caught:
        load(tmp_path / "model")
    assert "download" in caught.value.fix


def test_a_sentencepiece_model_is_refused_with_a_workaround(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "llama-2")
    (tmp_path / "model" / "tokenizer.json").rename(tmp_path / "model" / "tokenizer.model")
    with pytest.raises(DamageError, match=r"tokenizer\.model") as caught:
        load(tmp_path / "model")
    assert "save_pretrained" in caught.value.fix


def test_an_ambiguous_separator_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "model", "gpt2")
    path = tmp_path / "model" / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.add_special_tokens(["</s>"])
    backend.save(str(path))
    assert load(tmp_path / "model").tokenizer.separator == "<|endoftext|>"
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    with pytest.raises(InputError, match=r"</s>, but"):
        load(tmp_path / "model")
