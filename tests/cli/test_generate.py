"""What `acorn generate` prints in addition to the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import LINES, classifier_for

from acorn.checkpoint.model_folder import write_model_folder
from acorn.cli.stdout import Stdout
from acorn.generate import decoding
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

AT_ONCE = "The model ended the text"


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, run: Path):
    """Sets the tokens that are sampled for each prompt; None is the end of a text."""
    tokenizer = Tokenizer.from_file(run / "tokenizer.json")

    def set_tokens(*texts: str | None) -> None:
        ids = [tokenizer.separator_id if text is None else tokenizer.encode_documents([text])[0][0] for text in texts]
        monkeypatch.setattr(decoding, "next_token", lambda *arguments: torch.tensor(ids))

    return set_tokens


def test_a_text_of_one_token_does_not_count_as_empty(acorn, run: Path, draw) -> None:
    draw("S")
    done = acorn("generate", run, "--prompt", "1", "--max-new-tokens", 1)
    assert (done.returncode, done.stdout) == (0, "1S\n")
    assert AT_ONCE not in done.stderr
    draw("a")
    done = acorn("generate", run, "--prompt", "1", "--max-new-tokens", 9, "--stop", "aa")
    assert done.stdout == "1\n"  # stopped, but not by the model
    assert AT_ONCE not in done.stderr


def test_a_text_that_ends_immediately_is_reported_as_empty(acorn, run: Path, draw) -> None:
    draw(None)
    done = acorn("generate", run, "--prompt", "1")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert f"{AT_ONCE} immediately. Try another --seed, a prompt, or --ignore-eos." in done.stderr
    done = acorn("generate", run, "--prompt", "1", "--json")
    assert AT_ONCE not in done.stderr  # shown by finish_reason


def test_a_stop_string_at_the_beginning_is_named_as_the_reason(acorn, run: Path, draw) -> None:
    draw("a")
    done = acorn("generate", run, "--prompt", "1", "--stop", "a")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert AT_ONCE not in done.stderr
    assert "begins with a --stop string" in done.stderr


def test_with_several_prompts_the_number_of_empty_texts_is_reported(acorn, run: Path, draw) -> None:
    draw(None, "a", None)
    done = acorn("generate", run, "--prompt", "1", "--prompt", "2", "--prompt", "3", "--max-new-tokens", 1)
    assert f"{AT_ONCE} of 2 of the 3 prompts immediately." in done.stderr


def test_an_option_allows_unknown_tokens(acorn, run: Path, draw) -> None:
    assert acorn("generate", run, "--max-new-tokens", 1, "--allow-unknown").returncode == 0
    assert "[UNK]" in acorn("generate", "--help").stdout


def test_several_texts_are_separated_by_lines_only_on_a_terminal(
    acorn, run: Path, draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("S", "S")
    command = ("generate", run, "--prompt", "1\n\n1", "--prompt", "2", "--max-new-tokens", 1)
    done = acorn(*command)
    assert done.stdout == "1\n\n1S\n\n2S\n"
    assert "text 1 of 2" not in done.stderr
    monkeypatch.setattr(Stdout, "isatty", lambda self: True)
    shown = acorn(*command)
    assert shown.stdout == done.stdout
    assert shown.stderr.endswith("--- text 1 of 2 ---\n--- text 2 of 2 ---\n")
    draw("S")
    assert "text 1" not in acorn("generate", run, "--prompt", "1", "--max-new-tokens", 1).stderr
    draw("S", "S")
    assert "text 1" not in acorn(*command, "--json").stderr


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = LabelText(train(lambda: LINES, "bpe", 300)).tokenizer
    folder = tmp_path_factory.mktemp("models") / "final"
    model = classifier_for(tokenizer, HeadSpec("value", 1))
    write_model_folder(folder, model, tokenizer, "card", labels=["value"])
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "--prompt", "An"], "it does not generate text"),
        (["generate", "--prompt", "An", "--precision", "int8"], "it does not generate text"),
        (["evaluate", "--tasks", "arc_easy"], "it does not predict text"),
        (["export", "--format", "gguf", "--out", "OUT"], "acorn writes GGUF files of language models only"),
    ],
)
def test_a_model_that_gives_values_is_refused(
    acorn, classifier: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    command, *options = words
    done = acorn(command, classifier, *(str(tmp_path / "out") if word == "OUT" else word for word in options))
    assert done.returncode == 2
    assert f"The model gives each text a value; {said}" in done.stderr
    assert "fix: " in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_verify_knows_classifiers(acorn, classifier: Path) -> None:
    done = acorn("verify", classifier)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["intact", "model"])
