"""Conversations added to a .jsonl, and read back as examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.config import DataConfig, FinetuneConfig
from acorn.errors import UsageError
from acorn.generate.transcript import append_line, check_transcript
from acorn.text.example_splits import ExampleSplits
from acorn.text.examples import Chat


def record(*contents: str) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]}


def test_finetuning_reads_what_was_saved(tmp_path: Path) -> None:
    """What was in the file stays, also where its last line has no end."""
    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}')
    said = ("Who?", 'The "oak"\n🙂\u2028 ends', "Việt <|end|>", " a ")
    append_line(path, record(*said))
    append_line(path, record("again", "yes"))
    splits = ExampleSplits.open_held_out([str(path)], DataConfig(), FinetuneConfig(task="chat"))
    examples = splits.sides["--input"]
    contents = [tuple(message.content for message in one.messages) for one in examples if isinstance(one, Chat)]
    assert contents == [("x", "y"), said, ("again", "yes")]


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("notes.txt", "folder.jsonl", "nowhere/chats.jsonl"):
        with pytest.raises(UsageError) as refused:
            check_transcript(tmp_path / name)
        assert refused.value.fix
        with pytest.raises(UsageError):
            append_line(tmp_path / name, record("a", "b"))
    assert (tmp_path / "notes.txt").read_text() == "mine"
