"""What goes wrong with examples that are looked at and in conversations, and what acorn then does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import LINES, model_for

from acorn.checkpoint.model_folder import write_model_folder
from acorn.cli.chat_session import Session
from acorn.generate.conversation import Conversation
from acorn.generate.settings import SamplingSettings
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="module")
def chat_model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers last for seconds, if nothing ends them."""
    folder, format = tmp_path_factory.mktemp("models") / "chat", ChatFormat(tokenizer)
    model = model_for(tokenizer, "modern", n_layer=1, n_embd=32, block_size=1 << 15)
    write_model_folder(folder, model, tokenizer, "card", chat_template=format.template, end_ids=format.end_ids)
    return folder


@pytest.mark.fault(116)
def test_refused_rows_are_shown(acorn, chat_model: Path, tmp_path: Path) -> None:
    """Fault 116: counted and shown beside the others; where all are refused, the code is that of finetuning."""
    good, bad = '{"prompt": "a", "completion": "b%d"}\n', '{"prompt": "a", "completion": ""}\n'
    (tmp_path / "some.jsonl").write_text("".join(good % n for n in range(5)) + bad)
    (tmp_path / "none.jsonl").write_text(bad)
    done = acorn("data", "inspect", chat_model, "--data", tmp_path / "some.jsonl", "--task", "complete", "--json")
    printed = json.loads(done.stdout)
    assert [refusal["where"].rpartition(", ")[2] for refusal in printed["refused"]] == ["line 6"]
    assert printed["examples"] == 5
    done = acorn("data", "inspect", chat_model, "--data", tmp_path / "none.jsonl", "--task", "complete")
    assert done.returncode == 3
    assert "line 1: The answer (column 'completion') is empty." in done.stdout


@pytest.mark.fault(117)
def test_a_conversation_that_outgrows_the_context(tokenizer: Tokenizer) -> None:
    """Fault 117: the oldest turns are no longer read, which is said; a message too long alone is not sent."""
    model = model_for(tokenizer, "modern", n_layer=1, n_embd=32)
    conversation = Conversation(model, tokenizer, ChatFormat(tokenizer), SamplingSettings(max_new_tokens=4, seed=1))
    said: list[str] = []
    session = Session(conversation, lambda text: None, said.append)
    for _ in range(6):
        session.take("the old oak")
    assert any("is full: the oldest turn is no longer read" in text for text in said)
    assert len(conversation.turns) == 6
    session.take("oak " * 90)
    assert said[-1].startswith("Not sent: ")
    assert len(conversation.turns) == 6


@pytest.mark.fault(118)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudoterminal")
def test_ctrl_c_in_a_conversation(chat_model: Path, tmp_path: Path) -> None:
    """Fault 118: it ends the answer; what was written is kept and saved, and the program goes on."""
    import pty

    path, ours = tmp_path / "chats.jsonl", ["--ignore-eos", "--max-new-tokens", "30000", "--device", "cpu"]
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "acorn", "chat", str(chat_model), "--save", str(path), *ours]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True) as program:
        os.close(inner)
        screen = b""

        def wait_for(text: bytes) -> None:
            nonlocal screen
            while text not in screen:
                screen += os.read(outer, 4096)
            screen = screen.partition(text)[2]

        try:
            wait_for(b"> ")
            os.write(outer, "Who? 🙂\n".encode())
            wait_for("Who? 🙂\r\n".encode())
            while not screen:
                screen += os.read(outer, 1)
            program.send_signal(2)
            wait_for(b"Stopped. The beginning of the answer is kept")
            wait_for(b"> ")
            os.write(outer, b"/exit\n")
            wait_for(b"Added to ")
            assert program.wait(60) == 0
        finally:
            program.kill()
            os.close(outer)
    question, answer = json.loads(path.read_text())["messages"]
    assert question["content"] == "Who? 🙂"
    assert answer["content"]
