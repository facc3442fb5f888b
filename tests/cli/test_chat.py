"""`acorn chat` through pipes and on a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from small_models import LINES, classifier_for, model_for

from acorn.checkpoint.load import load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.cli import chat
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.label_head import HeadSpec
from acorn.text.examples import Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

SHORT = ("--max-new-tokens", 5, "--seed", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three model folders: one with a chat template, one without, and a classifier."""
    folder = tmp_path_factory.mktemp("models")
    model = model_for(tokenizer, "modern", n_layer=1, n_embd=32)
    format = ChatFormat(tokenizer)
    write_model_folder(folder / "chat", model, tokenizer, "card", chat_template=format.template, end_ids=format.end_ids)
    write_model_folder(folder / "text", model, tokenizer, "card")
    labels = LabelText(tokenizer).tokenizer
    write_model_folder(folder / "labels", classifier_for(labels, HeadSpec("value", 1)), labels, "card", labels=["v"])
    return {name: folder / name for name in ("chat", "text", "labels")}


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch):
    """Puts bytes into stdin."""

    def give(given: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8"))

    return give


def test_each_line_of_a_pipe_is_a_message(acorn, pipe, folders, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """stdout has the answers that generate gives, and nothing else; --save adds the conversation."""
    path = tmp_path / "chats.jsonl"
    pipe("\ufeffWho?\r\n\n/undo\nViệt 🙂\nWhere?".encode())
    done = acorn("chat", folders["chat"], "--system", "Be brief.", "--save", path, *SHORT)
    assert done.returncode == 0
    loaded, messages, answers = load(folders["chat"]), [Message("system", "Be brief.", False)], []
    for question in ("Who?", "Việt 🙂", "Where?"):
        ids = ChatFormat(tokenizer).encode([*messages, Message("user", question, False)], to_answer=True).ids
        settings = SamplingSettings(max_new_tokens=5, seed=2)
        (result,) = generate(loaded.model, tokenizer, [ids], settings, end_ids=loaded.end_ids)
        answers.append(result.completion)
        if question != "Who?":  # taken back
            messages += [Message("user", question, False), Message("assistant", result.completion, False)]
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)
    assert "Taken back: Who?" in done.stderr
    assert "> " not in done.stdout
    saved = json.loads(path.read_text())["messages"]
    assert saved == [{"role": message.role, "content": message.content} for message in messages]


def test_lines_that_cannot_be_answered_are_said_and_give_a_code_of_their_own(acorn, pipe, folders) -> None:
    pipe(b"\xff\xfe\n" + b"oak " * 90 + b"\nWho?\n")
    done = acorn("chat", folders["chat"], *SHORT)
    assert done.returncode == chat.UNANSWERED_CODE
    assert "Not sent: line 1 of stdin is not valid utf-8 text" in done.stderr
    assert "more than the model's context of 64" in done.stderr
    assert done.stdout.endswith("\n")


def test_a_model_without_a_template_says_once_that_it_continues_text(acorn, pipe, folders) -> None:
    pipe(b"The old\nAn\n")
    done = acorn("chat", folders["text"], *SHORT)
    assert done.returncode == 0
    assert done.stderr.count("it continues the text") == 1
    assert acorn("chat", folders["text"], "--system", "x").returncode == 2


def test_an_empty_or_closed_stdin_is_an_empty_conversation(acorn, pipe, folders, monkeypatch) -> None:
    pipe(b"")
    assert (acorn("chat", folders["chat"]).returncode, acorn("chat", folders["chat"]).stdout) == (0, "")
    monkeypatch.setattr(sys, "stdin", None)
    assert acorn("chat", folders["chat"]).returncode == 0


def test_a_classifier_is_refused(acorn, folders) -> None:
    done = acorn("chat", folders["labels"])
    assert done.returncode == 2
    assert "acorn predict" in done.stderr


def test_a_file_for_other_things_is_refused_before_the_model_is_loaded(acorn, tmp_path: Path) -> None:
    done = acorn("chat", tmp_path / "nowhere", "--save", tmp_path / "notes.txt")
    assert done.returncode == 2
    assert "is not a .jsonl file" in done.stderr


class Typed:
    """Stands for a person at a terminal: gives a line, or raises, each time a line is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *given: str | BaseException) -> None:
        self.given, self.prompts, self.said = list(given), [], []
        monkeypatch.setattr(chat, "_read", self.read)

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = self.given.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    @property
    def lines(self) -> list[str]:
        return list(chat._typed_lines(self.said.append))


def test_ctrl_d_or_ctrl_c_twice_ends_a_conversation(monkeypatch) -> None:
    stop = KeyboardInterrupt
    assert Typed(monkeypatch, "a", EOFError()).lines == ["a"]
    typed = Typed(monkeypatch, "a", stop(), "b", stop(), stop())
    assert typed.lines == ["a", "b"]
    assert typed.said == ["Ctrl-C again, or Ctrl-D, ends the conversation."] * 2


def test_a_message_can_have_several_lines(monkeypatch) -> None:
    typed = Typed(monkeypatch, '"""', "a", ' "b"', '"""', '"""c"""', '"""d', 'e"""', EOFError())
    assert typed.lines == ['a\n "b"', "c", "d\ne"]
    assert typed.prompts[:4] == [chat.PROMPT, chat.MORE, chat.MORE, chat.MORE]


def test_a_line_in_another_encoding_is_said(monkeypatch) -> None:
    typed = Typed(monkeypatch, UnicodeDecodeError("ascii", b"\xe9", 0, 1, "no"), "a", EOFError())
    assert typed.lines == ["a"]
    assert "not valid ascii text" in typed.said[0]


def test_ctrl_c_stops_an_answer_and_not_the_program() -> None:
    before = signal.getsignal(signal.SIGINT)
    with chat._stoppable() as is_stopped:
        assert not is_stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_stopped()
    assert signal.getsignal(signal.SIGINT) is before
