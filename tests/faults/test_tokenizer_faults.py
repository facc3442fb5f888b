"""Training and saving a tokenizer."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from acorn.errors import UsageError
from acorn.tokenizer import bpe
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import MAX_RUN_CHARACTERS, train

SRC = Path(__file__).parents[2] / "src"


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    ("name", "content", "clean", "parts"),
    [
        ("empty.txt", "", "none", ("empty.txt is empty.", "train: ")),
        ("blank.txt", " \n\t\n", "none", ("(0 documents, 4 bytes); dropped: 1 empty", "blank.txt")),
        ("quotes.txt", "'\n''\n\\\n", "wikitext", ("(0 documents, 7 bytes); dropped: 3 left empty by cleaning",)),
        (
            "one.txt",
            "A single line of text.\n",
            "none",
            ("too little text to hold out a part of it for validation: 1 document for training", ", 0 for validation"),
        ),
    ],
    ids=["empty", "blank", "empty after cleaning", "one side of the split"],
)
def test_no_text(acorn, refused, untouched, tmp_path: Path, name, content, clean, parts) -> None:
    """Fault 1: an empty text is refused with counts, and no tokenizer is written."""
    source = tmp_path / name
    source.write_text(content)
    command = ("tokenizer", "train", "--vocab-size", 300, "--input", source, "--clean", clean)
    with untouched(tmp_path):
        done = acorn(*command, "--out", tmp_path / "t.json")
    refused(done, 3, *parts)


@pytest.mark.fault(2)
@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_vocabulary_below_the_alphabet(acorn, refused, fine, untouched, tmp_path: Path, text_file, kind) -> None:
    """Fault 2: the message has the smallest size that works, and it does work."""
    letters = set(text_file.read_text()) - {" ", "\n"}
    least = 256 + 17 if kind == "bpe" else 2 * len(letters) + 2
    command = ("tokenizer", "train", "--kind", kind, "--input", text_file, "--out", tmp_path / "t.json")
    with untouched(tmp_path):
        refused(
            acorn(*command, "--vocab-size", least - 1),
            2,
            f"set tokenizer.vocab_size to {least}",
            f"{least - 1} entries",
        )
    fine(acorn(*command, "--vocab-size", least))
    assert Tokenizer.from_file(tmp_path / "t.json").vocab_size == least


@pytest.mark.fault(3)
@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_text_too_small_for_the_vocabulary(acorn, fine, tmp_path: Path, text_file: Path, kind: str) -> None:
    """Fault 3: the tokenizer is trained, and its actual size is reported."""
    out = tmp_path / "t.json"
    done = acorn(
        "tokenizer", "train", "--kind", kind, "--vocab-size", 5000, "--input", text_file, "--out", out, "--json"
    )
    reached = Tokenizer.from_file(out).vocab_size
    assert 40 < reached < 5000
    assert json.loads(done.stdout)["vocab_size"] == reached
    fine(done, f"too small for 5,000 vocabulary entries: it gave {reached}")


@pytest.mark.fault(4)
def test_one_line_of_a_million_equal_characters(acorn, fine, tmp_path: Path, write_rows, monkeypatch) -> None:
    """Fault 4: long words are split for the trainer, whose time grows with the square of their length."""
    source = write_rows("long.jsonl", json.dumps({"text": "a" * 1_000_000}))
    pieces: list[int] = []
    real = bpe.learn

    def watched(text, vocab_size, entries):
        def counted():
            for piece in text:
                assert len(piece) <= MAX_RUN_CHARACTERS  # fails early: with a longer one the trainer would take minutes
                pieces.append(len(piece))
                yield piece

        return real(counted(), vocab_size, entries)

    monkeypatch.setattr(bpe, "learn", watched)
    out = tmp_path / "t.json"
    fine(acorn("tokenizer", "train", "--vocab-size", 300, "--input", source, "--out", out))
    assert 1_000_000 <= sum(pieces) <= source.stat().st_size
    done = acorn("data", "prepare", "--tokenizer", out, "--input", source, "--out", tmp_path / "shards", "--json")
    fine(done)
    splits = json.loads(done.stdout)["splits"]
    assert sum(split["documents"] for split in splits.values()) == 61
    assert sum(split["bytes"] for split in splits.values()) > 1_000_000


@pytest.mark.fault(5)
def test_special_tokens_that_collide(text_file: Path) -> None:
    """Fault 5: all of them are named in one message."""
    entries = ["<unk>", "<unk>", "<|endoftext|>", "house", "##s"]
    with pytest.raises(UsageError) as caught:
        train(lambda: [text_file.read_text()], "bpe", 400, entries=entries)
    error = caught.value
    assert error.exit_code == 2
    assert "'<unk>' is given 2 times" in error.what
    assert "'<|endoftext|>' is a special token already" in error.what
    assert "'house' would collide with an ordinary word" in error.what
    assert "'##s'" in error.what
    assert error.where == "entries"
    assert "name each entry once" in error.fix


KILLED_WHILE_SAVING = """
import os, sys
from acorn.tokenizer.tokenizer import Tokenizer

setattr(os, sys.argv[1], lambda *arguments: os._exit(9))
Tokenizer.from_file(sys.argv[2]).save(sys.argv[3])
"""


@pytest.mark.fault(6)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_saving(tokenizer_file: Path, tmp_path: Path, call: str) -> None:
    """Fault 6: a process that ends while saving a tokenizer leaves the old file unchanged."""
    out = tmp_path / "t.json"
    train(lambda: ["an older one"], "bpe", 300).save(out)
    old = out.read_bytes()
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, call, str(tokenizer_file), str(out)]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(SRC)}).returncode == 9
    assert out.read_bytes() == old
    Tokenizer.from_file(tokenizer_file).save(out)
    assert out.read_bytes() == tokenizer_file.read_bytes()


@pytest.mark.fault(6)
def test_a_disk_that_is_full_while_saving(acorn, refused, untouched, full_disk, tmp_path: Path, text_file) -> None:
    """Fault 6: the same if the disk refuses the new file; the message says so, and no temporary file remains."""
    out = tmp_path / "t.json"
    train(lambda: ["an older one"], "bpe", 300).save(out)
    failed = full_disk(lambda target: target == out, errno.ENOSPC)
    with untouched(tmp_path):
        done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", text_file, "--out", out)
    refused(done, 6, "The disk is full", "bytes were needed", "t.json", "what was there before is intact")
    assert failed == [out]


@pytest.mark.fault(64)
@pytest.mark.parametrize("what", ["its own input", "text", "json", "a large file", "a pipe", "a link", "a folder"])
def test_what_is_not_a_tokenizer_is_not_replaced(acorn, refused, untouched, text_file, tmp_path, monkeypatch, what):
    """Fault 64: refused before the text is read, which would fail with another code for its bad byte."""
    source, out = tmp_path / "in.txt", tmp_path / "out.json"
    source.write_bytes(text_file.read_bytes() + b"\xff")
    if what == "its own input":
        out = source
    elif what == "text":
        out.write_text("my notes")
    elif what == "json":
        out.write_text('{"text": "a row"}\n')
    elif what == "a large file":
        train(lambda: ["some text"], "bpe", 300).save(out)
        monkeypatch.setattr("acorn.tokenizer.target.LARGEST_TOKENIZER_BYTES", 100)
    elif what == "a pipe":
        os.mkfifo(out)
    elif what == "a link":
        out.symlink_to(source)
    else:
        out.mkdir()
    with untouched(tmp_path):
        done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", source, "--out", out)
    refused(done, 2, f"{out} exists and is {'a folder' if out.is_dir() else 'not a tokenizer'}", "where: --out")


@pytest.mark.fault(64)
@pytest.mark.parametrize("name", ["config.toml", "config.json", "manifest.json"])
def test_the_tokenizer_of_a_run_or_model_is_not_replaced(acorn, refused, untouched, text_file, tmp_path, name) -> None:
    """Fault 64: its checksums would be wrong."""
    out = tmp_path / "tokenizer.json"
    train(lambda: ["some text"], "bpe", 300).save(out)
    (tmp_path / name).touch()
    with untouched(tmp_path):
        done = acorn("tokenizer", "train", "--vocab-size", 300, "--input", text_file, "--out", out)
    refused(done, 2, "is the tokenizer of a run or model", "where: --out")


@pytest.mark.fault(64)
@pytest.mark.parametrize("what", ["empty", "a tokenizer", "one without a separator"])
def test_a_tokenizer_is_replaced(acorn, fine, text_file: Path, tmp_path: Path, what: str) -> None:
    """Fault 64: also one that acorn could not use, and an empty file, which holds nothing."""
    out = tmp_path / "out.json"
    if what == "empty":
        out.touch()
    elif what == "a tokenizer":
        train(lambda: ["some text"], "wordpiece", 300).save(out)
    else:
        tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(out))
    fine(acorn("tokenizer", "train", "--vocab-size", 300, "--input", text_file, "--out", out))
    assert Tokenizer.from_file(out).vocab_size == 300


@pytest.mark.fault(7)
@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_the_number_of_threads_does_not_matter(text_file: Path, tmp_path: Path, kind: str) -> None:
    """Fault 7: one and five threads give equal bytes. The library reads the number once, so each has its own
    process."""
    made = set()
    for threads in ("1", "5"):
        out = tmp_path / f"{threads}.json"
        command = [sys.executable, "-m", "acorn", "tokenizer", "train", "--kind", kind, "--vocab-size", "320"]
        environment = {**os.environ, "PYTHONPATH": str(SRC), "RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [*command, "--input", str(text_file), "--out", str(out)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        made.add(out.read_bytes())
    assert len(made) == 1
