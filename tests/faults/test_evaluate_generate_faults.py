"""Evaluation and generation."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from acorn.generate import decoding
from acorn.run_folder import RunFolder
from acorn.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def other_kind(tmp_path_factory, pretrain, fine) -> Path:
    """A finished run with learned positions, and a tokenizer that loses upper case."""
    out = tmp_path_factory.mktemp("runs") / "gpt2"
    quick = ("train.steps=2", "train.eval_every=0", "train.save_every=0")
    fine(pretrain(out, "model.architecture=gpt2", "tokenizer.kind=wordpiece", "tokenizer.vocab_size=120", *quick))
    return out


@pytest.mark.fault(50)
@pytest.mark.parametrize("n_tokens", [3, 31, 32, 33, 64, 75])
def test_a_split_that_is_not_a_multiple_of_the_window(
    acorn, fine, finished: Path, tokenizer_file: Path, tmp_path: Path, n_tokens: int
) -> None:
    """Fault 50: shorter than a window of 32, or with a partial one at its end: every token is scored once."""
    tokenizer = Tokenizer.from_file(tokenizer_file)
    text = tmp_path / "text.txt"
    ids = tokenizer.encode_documents(["the cat saw a dog and then it slept in the old house. " * 20])[0]
    text.write_text(tokenizer.decode(ids[: n_tokens - 1]))
    assert len(tokenizer.encode_documents([text.read_text()])[0]) == n_tokens - 1
    done = acorn("evaluate", finished, "--input", text, "--json")
    fine(done)
    facts = json.loads(done.stdout)
    assert facts["tokens"] == n_tokens  # including the separator at the end
    assert facts["bytes"] == text.stat().st_size
    loss = _mean_loss(acorn, finished, tokenizer, text.read_text(), facts["context"])
    assert facts["loss_per_token"] == pytest.approx(loss, abs=1e-5)


def _mean_loss(acorn, run: Path, tokenizer: Tokenizer, text: str, context: int) -> float:
    """The loss, window by window."""
    from acorn import load

    model = load(run).model
    ids = [tokenizer.separator_id, *tokenizer.encode_documents([text])[0], tokenizer.separator_id]
    total = 0.0
    for begin in range(0, len(ids) - 1, context):
        window = torch.tensor([ids[begin : begin + context + 1]])
        with torch.no_grad():
            logits = model.head(model.hidden(window[:, :-1]))[0].float()
        total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
    return total / (len(ids) - 1)


@pytest.mark.fault(51)
def test_evaluation_does_not_disturb_training(pretrain, fine, finished: Path, tmp_path: Path) -> None:
    """Fault 51: with and without validation and samples, the run is bit-identical."""
    out = tmp_path / "run"
    fine(pretrain(out, "train.eval_every=0", "train.save_every=0", "model.dropout=0.0"))
    fine(pretrain(tmp_path / "busy", "train.eval_every=1", "train.sample_every=1", "model.dropout=0.0"))
    for name in ("model", "optimizer"):
        tensors = [load_file(RunFolder(run).checkpoint(8) / f"{name}.safetensors") for run in (out, tmp_path / "busy")]
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    weights = [load_file(run / "final" / "model.safetensors") for run in (out, finished)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.fault(51)
def test_evaluation_does_not_disturb_dropout(pretrain, fine, tmp_path: Path) -> None:
    """Fault 51: also if training itself uses random numbers."""
    weights = []
    for name, every in (("quiet", 0), ("busy", 1)):
        settings = ("model.architecture=gpt2", "model.dropout=0.3", f"train.eval_every={every}")
        fine(pretrain(tmp_path / name, *settings, f"train.sample_every={every}", "train.steps=4"))
        weights.append(load_file(tmp_path / name / "final" / "model.safetensors"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.fault(52)
def test_bytes_are_those_of_the_original_text(acorn, fine, other_kind: Path, tmp_path: Path) -> None:
    """Fault 52: also if the tokenizer is lossy, and its tokens decode to a text of another length."""
    text = tmp_path / "text.txt"
    text.write_bytes("the  cat\tsaw not a dôg.\r\nand  then\r\n".encode())
    tokenizer = Tokenizer.from_file(other_kind / "tokenizer.json")
    decoded = tokenizer.decode(tokenizer.encode_documents([text.read_bytes().decode()])[0])
    assert len(decoded.encode()) != text.stat().st_size
    done = acorn("evaluate", other_kind, "--input", text, "--json")
    fine(done)
    facts = json.loads(done.stdout)
    assert facts["bytes"] == text.stat().st_size
    assert facts["words"] == 8 + 2  # one more for each end of line
    nats = facts["loss_per_token"] * facts["tokens"]
    assert facts["bits_per_byte"] == pytest.approx(nats / math.log(2) / text.stat().st_size, rel=1e-6)
    assert facts["lossless"] is False
    assert "normal" in facts["bits_per_byte_note"]


@pytest.mark.fault(59)
def test_text_that_the_vocabulary_cannot_spell(acorn, fine, other_kind: Path, tmp_path: Path) -> None:
    """Fault 59: no bits per byte, and the reason; a prompt is continued, with a note on what is lost."""
    text = tmp_path / "ru.txt"
    text.write_text("Все счастливые семьи похожи друг на друга. " * 20, "utf-8")
    done = acorn("evaluate", other_kind, "--input", text, "--json")
    fine(done)
    facts = json.loads(done.stdout)
    assert facts["bits_per_byte"] is None
    assert facts["unknown_rate"] > 0.8
    assert "the vocabulary cannot spell" in facts["bits_per_byte_note"]
    assert "note on bits per byte" in acorn("evaluate", other_kind, "--input", text).stdout
    done = acorn("generate", other_kind, "--prompt", "the cat Все", "--max-new-tokens", 3)
    fine(done)
    assert done.stderr.count("lacks a part of the prompt: 1 of 3 tokens are [UNK]") == 1


@pytest.mark.fault(53)
def test_a_prompt_longer_than_the_context(acorn, fine, refused, finished: Path, tokenizer_file: Path) -> None:
    """Fault 53: its end is used, with a note; with --strict it is refused."""
    prompt = "the cat saw a dog. " * 20
    ids = Tokenizer.from_file(tokenizer_file).encode_prompt(prompt)
    command = ("generate", finished, "--prompt", prompt, "--max-new-tokens", 2)
    done = acorn(*command, "--json")
    fine(
        done, f"Prompt 1 has {len(ids)} tokens, more than the model's context of 32: only its last 32 tokens are used."
    )
    assert json.loads(done.stdout)["prompt_ids"] == ids[-32:]
    refused(acorn(*command, "--strict"), 2, f"Prompt 1 has {len(ids)} tokens", "prompt 1", "omit --strict")


@pytest.mark.fault(54)
@pytest.mark.parametrize("prompt", [("--prompt", ""), ()], ids=["empty", "none"])
def test_an_empty_prompt(acorn, fine, finished: Path, tokenizer_file: Path, prompt: tuple[str, ...]) -> None:
    """Fault 54: the text begins like a document, after a separator."""
    done = acorn("generate", finished, *prompt, "--max-new-tokens", 3, "--ignore-eos", "--json")
    fine(done)
    result = json.loads(done.stdout)
    assert result["prompt_ids"] == [Tokenizer.from_file(tokenizer_file).separator_id]
    assert len(result["new_ids"]) == 3


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("--temperature", "-1", "temperature"),
        ("--temperature", "nan", "temperature"),
        ("--temperature", "inf", "temperature"),
        ("--top-p", "0", "top_p"),
        ("--top-p", "1.5", "top_p"),
        ("--top-p", "nan", "top_p"),
        ("--top-k", "-1", "top_k"),
        ("--min-p", "1", "min_p"),
        ("--repetition-penalty", "0", "repetition_penalty"),
        ("--max-new-tokens", "0", "max_new_tokens"),
        ("--stop", "", "stop"),
    ],
)
def test_invalid_settings(acorn, refused, finished: Path, option: str, value: str, name: str) -> None:
    """Fault 55: each is named with its valid values; nothing is written."""
    refused(acorn("generate", finished, "--prompt", "the", option, value), 2, f"{name} cannot be", "give ")


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("--temperature", "0"), ("--greedy",)),
        (("--temperature", "1e-9"), ("--greedy",)),
        (("--top-k", "100000"), ("--top-k", "0")),
        (("--top-p", "1"), ("--top-k", "0")),
    ],
)
def test_valid_extreme_settings(acorn, fine, finished: Path, one, other) -> None:
    """Fault 55: temperature 0 is greedy; a top-k above the vocabulary size means all of it."""
    results = []
    for options in (one, other):
        command = ("generate", finished, "--prompt", "the", "--seed", 3, "--max-new-tokens", 20, "--ignore-eos")
        if "--top-p" in one:
            command = (*command, "--top-k", "0") if options is one else command
        done = acorn(*command, *options, "--json")
        fine(done)
        results.append(json.loads(done.stdout)["new_ids"])
    assert results[0] == results[1]


@pytest.mark.fault(56)
def test_a_character_split_over_tokens(acorn, fine, monkeypatch, finished: Path, tokenizer_file: Path) -> None:
    """Fault 56: streamed pieces contain whole characters only."""
    tokenizer = Tokenizer.from_file(tokenizer_file)
    text = "dôg 日本 🌰"
    ids = tokenizer.encode_documents([text])[0]
    assert len(ids) > len(text)
    drawn = iter(ids)
    monkeypatch.setattr(decoding, "next_token", lambda *arguments: torch.tensor([next(drawn)]))
    pieces: list[str] = []
    real = decoding.DecodingLoop.turn

    def watched(self):
        updates = real(self)
        pieces.extend(update.text for _, update in updates)
        return updates

    monkeypatch.setattr(decoding.DecodingLoop, "turn", watched)
    done = acorn("generate", finished, "--prompt", "the ", "--max-new-tokens", len(ids))
    fine(done)
    assert done.stdout == f"the {text}\n"
    assert "".join(pieces) == text
    assert len(list(filter(None, pieces))) > 3
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.fault(56)
def test_an_incomplete_character_at_the_end(acorn, fine, monkeypatch, finished: Path, tokenizer_file: Path) -> None:
    """Fault 56: at the end of the text, the rest is decoded to U+FFFD."""
    first = Tokenizer.from_file(tokenizer_file).encode_documents(["日"])[0][:1]
    drawn = iter(first)
    monkeypatch.setattr(decoding, "next_token", lambda *arguments: torch.tensor([next(drawn)]))
    done = acorn("generate", finished, "--prompt", "the ", "--max-new-tokens", 1)
    fine(done)
    assert done.stdout == "the \ufffd\n"


@pytest.mark.fault(57)
@pytest.mark.parametrize("options", [("--greedy",), ("--temperature", "5", "--top-k", "0", "--seed", "1")])
def test_padded_ids_are_never_generated(acorn, fine, finished: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fault 57: rows of a padded vocabulary, however large, and control tokens are not generated."""
    folder = shutil.copytree(finished / "final", tmp_path / "padded")
    (folder / "manifest.json").unlink()  # a folder from another program has none
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["model.embed_tokens.weight"]
    loud = 1000 * torch.randn(20, rows.size(1), generator=torch.Generator().manual_seed(0))
    tensors["model.embed_tokens.weight"] = torch.cat([rows, loud])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == 300
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 320}))
    done = acorn("generate", folder, "--prompt", "the", "--max-new-tokens", 60, "--ignore-eos", *options, "--json")
    fine(done)
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    drawn = set(json.loads(done.stdout)["new_ids"])
    assert max(drawn) < tokenizer.vocab_size == 300
    assert not drawn & set(tokenizer.reserved_ids)
    assert tokenizer.reserved_ids


@pytest.mark.fault(58)
def test_text_that_outgrows_the_context(acorn, fine, other_kind: Path) -> None:
    """Fault 58: learned positions end there: the window slides, with one note."""
    done = acorn("generate", other_kind, "--prompt", "the", "--max-new-tokens", 100, "--ignore-eos", "--json")
    fine(
        done, "The text is longer than the model's context of 32 tokens", "generation continues from the last 24 tokens"
    )
    assert done.stderr.count("is longer than the model's context") == 1
    assert len(json.loads(done.stdout)["new_ids"]) == 100
