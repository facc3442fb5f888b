"""The makers of rows for finetuning: what they write is right, and can be read by `acorn finetune`."""

from __future__ import annotations

import json
import re
import runpy
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

MAKERS = Path(__file__).resolve().parents[2] / "examples" / "finetuning"


def make(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Runs a maker in `folder` and gives its names."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    return runpy.run_path(str(MAKERS / f"{name}.py"), run_name="__main__")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_dates_agree_with_the_calendar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = make("dates", tmp_path, monkeypatch, "--examples", "2000")
    train, test = rows_of(tmp_path / "dates/train.jsonl"), rows_of(tmp_path / "dates/test.jsonl")
    assert (len(train), len(test)) == (1800, 200)
    answers = [row["completion"] for row in (*train, *test)]
    assert len(set(answers)) == len(answers)  # so no date is on both sides
    weekdays = seen = 0
    for row in (*train, *test):
        day, text = date.fromisoformat(row["completion"].strip()), row["prompt"].lower()
        assert text.endswith(" =")
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        if len(numbers) > 1:
            assert {day.year, day.year % 100} & set(numbers)
            assert day.day in numbers
        for listed in names["WEEKDAYS"].values():
            for number, word in enumerate(listed.lower().split()):
                if text.startswith(word):
                    # Some languages share a name, never for another day.
                    assert number == day.weekday(), text
                    weekdays += 1
        seen += not any(character.isalpha() for character in text)
    assert weekdays > 100
    assert 100 < seen < 1000


@pytest.mark.parametrize(
    ("number", "ending"), [(1, "st"), (2, "nd"), (3, "rd"), (4, "th"), (11, "th"), (13, "th"), (22, "nd"), (31, "st")]
)
def test_english_ordinals(number: int, ending: str) -> None:
    assert runpy.run_path(str(MAKERS / "dates.py"))["ordinal_ending"](number) == ending


PLAY = """ROMEO:
Ay me! sad hours
seem long.

BENVOLIO:
What sadness?

ROMEO:
Not having that.

MERCUTIO:
Nay, gentle Romeo.

Exeunt

ROMEO:
Alone.

ROMEO:
Again alone.
"""


def test_conversations_alternate_and_answer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "play.txt").write_text(PLAY)
    make("shakespeare", tmp_path, monkeypatch, "play.txt")
    found = [[(m["role"], m["content"]) for m in row["messages"]] for row in rows_of(tmp_path / "shakespeare.jsonl")]
    assert found == [
        [("system", "BENVOLIO"), ("user", "Ay me! sad hours seem long."), ("assistant", "What sadness?")],
        [("system", "MERCUTIO"), ("user", "Not having that."), ("assistant", "Nay, gentle Romeo.")],
    ]


def test_long_speeches_and_turns_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeches = [f"{'AB'[n % 2]}:\n{'word ' * (50 if n == 4 else 1)}{n}" for n in range(12)]
    (tmp_path / "play.txt").write_text("\n\n".join(speeches))
    make("shakespeare", tmp_path, monkeypatch, "play.txt", "--longest", "40", "--turns", "4")
    found = [[m["content"][-2:].strip() for m in row["messages"]] for row in rows_of(tmp_path / "shakespeare.jsonl")]
    assert found == [["B", "0", "1", "2", "3"], ["A", "5", "6", "7", "8"], ["B", "8", "9", "10", "11"]]


def mail(subject: str, body: str, kind: str = "text/plain") -> bytes:
    return f"From: a@b\nSubject: {subject}\nContent-Type: {kind}\n\n{body}\n".encode("latin-1")


def test_mails_become_subject_and_body_and_repeats_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = "Content-Type: text/plain\n\nplain\n--x\nContent-Type: text/html\n\n<p>page</p>\n--x--"
    mails = {
        "easy-ham-1": [mail("Lunch", "At  noon?\n\nYes"), mail("Lunch", "At noon?\nYes"), mail("Both", "labels")],
        "hard-ham-1": [mail("Café", "voilà")],
        "spam-1": [
            mail("Win", "<style>p {}</style><b>Cash</b> &amp; more", "text/html"),
            mail("Parts", f"--x\n{both}", "multipart/alternative; boundary=x"),
            mail("=?iso-8859-1?Q?Ol=E1?= you", "text", "text/plain; charset=no-such"),
            mail("Both", "labels"),
        ],
    }
    for folder, listed in mails.items():
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number, raw in enumerate(listed):
            (tmp_path / "data" / folder / f"{number}.txt").write_bytes(raw)
    make("mails", tmp_path, monkeypatch, "data", "--out", "all")
    found = {row["text"]: row["label"] for name in ("train", "test") for row in rows_of(tmp_path / f"all/{name}.jsonl")}
    assert found == {
        "Lunch\nAt noon?\nYes": "ham",
        "Café\nvoilà": "ham",
        "Win\nCash & more": "spam",
        "Parts\nplain": "spam",
        "Olá you\ntext": "spam",
    }
    make("mails", tmp_path, monkeypatch, "data", "--out", "few", "--each", "1")
    few = {name: rows_of(tmp_path / f"few/{name}.jsonl") for name in ("train", "test", "rest")}
    assert [row["label"] for row in few["train"]] == ["ham", "spam"]
    assert few["test"] == rows_of(tmp_path / "all/test.jsonl")
    assert {row["text"] for side in few.values() for row in side} == set(found)
    assert sum(map(len, few.values())) == len(found)
