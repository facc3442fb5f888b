"""The texts of the tokenizers' gate: where they come from, and that the hard ones are hard."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest
from command_line import run_acorn

from acorn.export.probe_texts import adversarial_strings, held_out_lines
from acorn.tokenizer.tokenizer import Tokenizer

LINES = [f"Sentence {n} says that {n} and {n + 1} make {2 * n + 1}." for n in range(2500)]
SETTINGS = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=32", "train.steps=1"]
SETTINGS += ["train.batch_size=1", "train.compile=false", "train.precision=fp32", "train.threads=1"]
SETTINGS += ["train.eval_every=0", "train.sample_every=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its text in one folder: the first half of the lines for training, the rest held out."""
    folder = tmp_path_factory.mktemp("trained")
    for name, lines in (("train", LINES[:300]), ("valid", LINES[300:700]), ("test", LINES[700:1000])):
        (folder / f"{name}.txt").write_text("\n".join(lines))
    sources = [f"data.source={folder}/train.txt", f"data.valid_source={folder}/valid.txt"]
    sources += [f"data.test_source={folder}/test.txt"]
    done = run_acorn("pretrain", "small", *sources, *SETTINGS, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("text_is_there", [True, False])
def test_lines_are_from_held_out_text(trained: Path, tmp_path: Path, text_is_there: bool) -> None:
    """They come from the text itself or, if that is missing, from the token shards, which contain the same lines."""
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    if not text_is_there:
        shutil.move(trained / "test.txt", tmp_path / "test.txt")
    try:
        lines, origins = held_out_lines(folder / "run" / "final", Tokenizer.from_file(folder / "run/tokenizer.json"))
    finally:
        if not text_is_there:
            shutil.move(tmp_path / "test.txt", trained / "test.txt")
    kind = "text" if text_is_there else "tokens"
    assert origins == {f"the run's held-out {kind}": 700, "the bundled WikiText-2": 1300}
    assert lines[:700] == LINES[700:1000] + LINES[300:700]
    assert len(set(lines)) == 2000


def test_a_model_outside_a_run_is_checked_on_the_bundled_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines, origins = held_out_lines(tmp_path, tokenizer)
    assert origins == {"the bundled WikiText-2": 2000}
    assert len(set(lines)) == 2000


def test_there_are_200_adversarial_strings_and_always_the_same(tokenizer: Tokenizer) -> None:
    strings = adversarial_strings(tokenizer)
    assert len(set(strings)) == len(strings) == 200
    assert strings == adversarial_strings(Tokenizer.from_json(tokenizer.to_json()))
    together = "".join(strings)
    assert {"Lu", "Ll", "Lm", "Lo", "Mn", "Mc", "Nd", "No", "Pc", "Sc", "Sk", "So", "Zs", "Zl", "Zp"} <= {
        unicodedata.category(character) for character in together
    }
    assert {"Cc", "Cf", "Co", "Cn"} <= {unicodedata.category(character) for character in together}
    bidirectional = {unicodedata.bidirectional(character) for character in together}
    assert {"R", "AL", "AN", "RLO", "PDF"} <= bidirectional
    assert "\u200d" in together
    assert "\U0001f3fd" in together  # a skin tone
    assert "\r\n" in together
    for special in (tokenizer.separator, "<|user|>", "<|pad|>"):
        assert special in strings
