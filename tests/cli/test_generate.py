"""What `acorn generate` says beside the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acorn.generate import engine
from acorn.tokenizer.tokenizer import Tokenizer

AT_ONCE = "The model ended the text"


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, run: Path):
    """Sets the tokens that are drawn, those of each prompt; a text's end is None."""
    tokenizer = Tokenizer.from_file(run / "tokenizer.json")

    def set_tokens(*texts: str | None) -> None:
        ids = [tokenizer.separator_id if text is None else tokenizer.encode_documents([text])[0][0] for text in texts]
        monkeypatch.setattr(engine, "next_token", lambda *arguments: torch.tensor(ids))

    return set_tokens


def test_a_text_of_one_token_is_not_called_empty(acorn, run: Path, draw) -> None:
    draw("S")
    done = acorn("generate", run, "--prompt", "1", "--max-new-tokens", 1)
    assert (done.returncode, done.stdout) == (0, "1S\n")
    assert AT_ONCE not in done.stderr
    draw("a")
    done = acorn("generate", run, "--prompt", "1", "--max-new-tokens", 9, "--stop", "aa")
    assert done.stdout == "1\n"  # stopped, yet not by the model
    assert AT_ONCE not in done.stderr


def test_a_text_that_ended_at_once_is(acorn, run: Path, draw) -> None:
    draw(None)
    done = acorn("generate", run, "--prompt", "1")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert f"{AT_ONCE} at once. Try another --seed, a prompt, or --ignore-eos." in done.stderr
    done = acorn("generate", run, "--prompt", "1", "--json")
    assert AT_ONCE not in done.stderr  # its finish_reason says so


def test_a_stop_string_at_the_beginning_is_named_for_what_it_is(acorn, run: Path, draw) -> None:
    draw("a")
    done = acorn("generate", run, "--prompt", "1", "--stop", "a")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert AT_ONCE not in done.stderr
    assert "begins with a string of --stop" in done.stderr


def test_of_several_prompts_it_is_said_how_many(acorn, run: Path, draw) -> None:
    draw(None, "a", None)
    done = acorn("generate", run, "--prompt", "1", "--prompt", "2", "--prompt", "3", "--max-new-tokens", 1)
    assert f"{AT_ONCE} of 2 of the 3 prompts at once." in done.stderr


def test_the_unknown_token_has_an_option(acorn, run: Path, draw) -> None:
    assert acorn("generate", run, "--max-new-tokens", 1, "--allow-unknown").returncode == 0
    assert "[UNK]" in acorn("generate", "--help").stdout
