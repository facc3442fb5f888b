"""`acorn data inspect` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import LINES, model_for
from transformers import AutoTokenizer

from acorn.checkpoint.model_folder import write_model_folder
from acorn.cli.stdout import Stdout
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, one with WordPiece, and rows."""
    folder = tmp_path_factory.mktemp("inspect")
    tokenizer = train(lambda: LINES, "bpe", 320)
    model = model_for(tokenizer, "modern", n_layer=1, n_embd=32)
    format = ChatFormat(tokenizer)
    write_model_folder(folder / "base", model, tokenizer, "card", chat_template=format.template, end_ids=format.end_ids)
    pieces = train(lambda: LINES, "wordpiece", 200)
    write_model_folder(folder / "pieces", model_for(pieces, "gpt2", n_layer=1, n_embd=32), pieces, "card")
    said = [("user", "Who?"), ("assistant", "I."), ("user", "Việt 🙂?"), ("assistant", "Oak.")]
    rows = [{"messages": [{"role": role, "content": f"{text} {n}"} for role, text in said]} for n in range(12)]
    bad = ['{"messages": []}', "no json"]
    (folder / "chat.jsonl").write_text("\n".join([*map(json.dumps, rows), *bad]) + "\n")
    (folder / "bad.jsonl").write_text("no json\nnor this\n")
    lines = [f"the oak {n},{'tree' if n % 3 else 'path'}" for n in range(12)]
    (folder / "mails.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (folder / "sizes.csv").write_text("\n".join(["text,label", *(f"the oak {n},{n}.5" for n in range(12))]) + "\n")
    return folder


def test_json_has_the_ids_and_masks_of_transformers(acorn, folder: Path) -> None:
    done = acorn("data", "inspect", "base", "--data", "chat.jsonl", "--rows", 3, "--json", cwd=folder)
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert set(printed) == {"task", "examples", "refused", "rows"}
    assert (printed["task"], printed["examples"], len(printed["rows"])) == ("chat", 12, 3)
    assert [refusal["where"] for refusal in printed["refused"]] == ["chat.jsonl, line 13", "chat.jsonl, line 14"]
    assert all(refusal["reason"] for refusal in printed["refused"])
    theirs = AutoTokenizer.from_pretrained(folder / "base")
    for row, line in zip(printed["rows"], (folder / "chat.jsonl").read_text().splitlines(), strict=False):
        expected = theirs.apply_chat_template(
            json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        assert row == {
            "ids": expected["input_ids"],
            "trained": [bool(value) for value in expected["assistant_masks"]],
        }


def test_people_see_the_whole_of_it(acorn, folder: Path) -> None:
    done = acorn("data", "inspect", "base", "--data", "chat.jsonl", "--rows", 1, cwd=folder)
    assert done.returncode == 0
    for said in (
        "task      chat: the column 'messages'",
        "of 14 rows (2 refused)",
        "a share of the rows",
        "The model reads 64 (block_size).",
        "Refused: 2",
        "chat.jsonl, line 13: The column 'messages' holds no message",
        "and 1 more (--rows shows more)",
        "Tokens that are trained are between [[ and ]].",
        "<|user|>Who? 0<|end|><|assistant|>[[I. 0<|end|>]]<|user|>Việt 🙂? 0<|end|><|assistant|>[[Oak. 0<|end|>]]",
    ):
        assert said in done.stdout
    assert done.stdout.count("<|endoftext|>") == 1


def test_labels_and_values(acorn, folder: Path) -> None:
    done = acorn("data", "inspect", "pieces", "--data", "mails.csv", "--rows", 1, cwd=folder)
    assert "'path' " in done.stdout
    assert "'tree' " in done.stdout
    assert "mails.csv, line 2 (" in done.stdout
    assert "): path\n" in done.stdout
    done = acorn("data", "inspect", "pieces", "--data", "sizes.csv", "finetune.overlong=drop", cwd=folder)
    assert "values from 0.5 to " in done.stdout


def test_colors_replace_the_brackets_on_a_terminal(acorn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stdout, "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    command = ("data", "inspect", "base", "--data", "chat.jsonl", "--rows", 1)
    done = acorn(*command, cwd=folder)
    assert "\x1b[32mI. 0\x1b[0m" in done.stdout
    assert "Tokens that are trained are green." in done.stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "[[I. 0" in acorn(*command, cwd=folder).stdout


def test_a_terminal_without_block_characters_gets_others(acorn, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(Stdout, "encoding", "ascii")
    done = acorn("data", "inspect", "base", "--data", "chat.jsonl", "--rows", 0, cwd=folder)
    assert "####" in done.stdout
    assert "█" not in done.stdout


def test_rows_of_which_all_are_refused_are_shown_first(acorn, folder: Path) -> None:
    done = acorn("data", "inspect", "base", "--data", "bad.jsonl", cwd=folder)
    assert done.returncode == 3
    assert "bad.jsonl, line 2" in done.stdout
    assert "There is no example" in done.stderr
    done = acorn("data", "inspect", "base", "--data", "bad.jsonl", "--json", cwd=folder)
    assert done.returncode == 3
    assert json.loads(done.stdout) | {"refused": 0} == {"task": None, "examples": 0, "refused": 0, "rows": []}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--data", "chat.jsonl"], 2, "No model is named"),
        (["base"], 2, "No rows are named"),
        (["base", "--data", "chat.jsonl", "--task", "sort"], 2, "no task 'sort'"),
        (["base", "--data", "chat.jsonl", "--rows", "-1"], 2, "--rows"),
        (["base", "--data", "chat.jsonl", "data.clean=wikitext"], 2, "no effect in finetuning"),
        (["pieces", "--data", "chat.jsonl"], 2, "no chat with it"),
        (["base", "--data", "nowhere.jsonl"], 3, "nowhere.jsonl"),
        (["base", "--data", "chat.jsonl", "--task", "classify"], 3, "There is no example"),
    ],
)
def test_what_finetuning_refuses_is_refused(acorn, folder: Path, words: list[str], code: int, said: str) -> None:
    done = acorn("data", "inspect", *words, cwd=folder)
    assert done.returncode == code
    assert said in done.stderr
