"""The lines of a conversation: which are messages, which are commands, and what is said."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from small_models import LINES, model_for

from acorn.cli.chat_session import COMMANDS, HELP, Session
from acorn.generate.conversation import Conversation, Turn
from acorn.generate.settings import SamplingSettings
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


class Led:
    """A session whose output is kept."""

    def __init__(self, tokenizer: Tokenizer, save_to: Path | None = None, **settings) -> None:
        model = model_for(tokenizer, "modern", n_layer=1, n_embd=32)
        sampling = SamplingSettings(**{"max_new_tokens": 4, "seed": 1, "ignore_eos": True, **settings})
        self.conversation = Conversation(model, tokenizer, ChatFormat(tokenizer), sampling)
        self.written: list[str] = []
        self.said: list[str] = []
        self.session = Session(self.conversation, self.written.append, self.said.append, save_to)

    def take(self, *lines: str) -> bool:
        return [self.session.take(line) for line in lines][-1]

    @property
    def questions(self) -> list[str]:
        return [turn.question for turn in self.conversation.turns]


@pytest.fixture
def led(tokenizer: Tokenizer) -> Led:
    return Led(tokenizer)


def test_messages_are_answered_and_empty_lines_are_not(led: Led) -> None:
    assert led.take("Who?", "", "  ", "//exit", " /undo")
    assert led.questions == ["Who?", "/exit", " /undo"]
    assert "".join(led.written) == "".join(f"{turn.answer}\n" for turn in led.conversation.turns)


def test_unknown_commands_are_said_and_not_sent(led: Led) -> None:
    assert led.take("/unod", "/etc/passwd", "/", "/exit now", "/undo it")
    assert led.conversation.turns == []
    assert "There is no command /unod. Did you mean /undo?" in led.said[0]
    assert "begin it with //" in led.said[1]
    assert "/exit takes nothing after it" in led.said[3]
    assert len(led.said) == 5
    assert not led.take("/exit")


def test_help_names_every_command(led: Led) -> None:
    led.take("/help")
    assert led.said == [HELP]
    assert [line.split()[0] for line in HELP.splitlines() if line.startswith("/")] == [f"/{name}" for name in COMMANDS]


def test_undo_retry_and_new(tokenizer: Tokenizer) -> None:
    led = Led(tokenizer, max_new_tokens=12, temperature=2.0)
    led.take("/undo", "/retry")
    assert led.said == ["There is nothing to take back.", "There is no message to answer again."]
    led.take("Who?", "Where?")
    first = led.conversation.turns[-1]
    led.take("/retry")
    assert led.questions == ["Who?", "Where?"]
    assert led.conversation.turns[-1] != first
    led.take("/undo")
    assert led.questions == ["Who?"]
    assert led.said[-1] == "Taken back: Where?"
    led.take("/new")
    assert led.conversation.turns == []


def test_the_system_message_is_set_shown_and_removed(led: Led) -> None:
    led.take("/system", "/system Be  brief.", "/system", "/system none", "/system")
    assert led.said == [
        "System message: (none)",
        "The system message is set.",
        "System message: Be  brief.",
        "There is no system message now.",
        "System message: (none)",
    ]


def test_what_the_text_of_an_answer_does_not_show_is_said(led: Led) -> None:
    led.take("Who?", "oak " * 90)
    assert led.said[0].startswith("The answer was cut after 4 tokens")
    assert led.said[1].startswith("Not sent: The message has ")
    assert led.session.refused == 1
    led.said.clear()
    led.take(*["the old oak"] * 6)
    full = [said for said in led.said if "no longer read" in said]
    assert full[0] == "The context of 64 tokens is full: the oldest turn is no longer read."
    assert len(full) == len(set(full))
    led.conversation.settings = SamplingSettings(max_new_tokens=60, ignore_eos=True)
    led.take("/new", "Who?")
    assert led.said[-1] == "The answer was cut: the context of 64 tokens is full."


def test_an_answer_can_be_stopped(tokenizer: Tokenizer) -> None:
    led = Led(tokenizer, max_new_tokens=40)
    stoppable = [nullcontext(lambda: len(led.written) >= 2), nullcontext(lambda: True)]
    session = Session(led.conversation, led.written.append, led.said.append, stoppable=lambda: stoppable.pop(0))
    session.take("Who?")
    (turn,) = led.conversation.turns
    assert (turn.ending, led.written) == ("interrupted", [*led.written[:2], "\n"])
    assert led.said == ["Stopped. The beginning of the answer is kept; /undo takes it back."]
    session.take("Where?")
    assert led.questions == ["Who?"]
    assert led.said[1:] == ["Stopped before the answer began. Your message was taken back."]


def test_conversations_are_saved_when_they_end(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Each once, one a line; /save adds what there is so far."""
    path, other = tmp_path / "chats.jsonl", tmp_path / "other.jsonl"
    led = Led(tokenizer, path)
    turns = [Turn("a", "b", "eos"), Turn("c", "", "eos")]
    led.conversation.turns = list(turns)
    led.take("/new", "/save")
    assert led.said[0] == f"Added to {path}: a conversation of 1 answer; 1 turn with an empty answer left out."
    assert led.said[-1] == "Nothing was saved: there is no answer yet."
    led.conversation.turns = [Turn("d", "e", "length")]
    led.take(f"/save {other}", "/save")
    led.session.close()
    contents = [
        [[message["content"] for message in json.loads(line)["messages"]] for line in file.read_text().splitlines()]
        for file in (path, other)
    ]
    assert contents == [[["a", "b"], ["d", "e"]], [["d", "e"]]]
    led.take(f"/save {tmp_path / 'x.txt'}")
    assert led.said[-1].startswith("Not saved: ")
    assert not (tmp_path / "x.txt").exists()


def test_save_asks_for_a_file_where_none_was_named(led: Led) -> None:
    led.take("/save")
    assert led.said == ["Name a file: /save chats.jsonl"]
