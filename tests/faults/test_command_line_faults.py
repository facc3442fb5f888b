"""Command-line arguments, and the output of results."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import signal_handlers_put_back
from safetensors.torch import load_file, save_file

from acorn.cli.main import main
from acorn.tokenizer.tokenizer import Tokenizer

COMMANDS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "help": lambda run, text, out: ["--help"],
    "version": lambda run, text, out: ["--version"],
    "generate": lambda run, text, out: ["generate", run, "--prompt", "the", "--max-new-tokens", 2],
    "generate two": lambda run, text, out: ["generate", run, "the", "a", "--max-new-tokens", 2],
    "generate json": lambda run, text, out: ["generate", run, "--max-new-tokens", 2, "--json"],
    "evaluate": lambda run, text, out: ["evaluate", run],
    "evaluate json": lambda run, text, out: ["evaluate", run, "--json"],
    "verify": lambda run, text, out: ["verify", run],
    "report": lambda run, text, out: ["report", run],
    "inspect": lambda run, text, out: ["tokenizer", "inspect", run / "tokenizer.json", "--text", "the cat"],
    "train": lambda run, text, out: ["tokenizer", "train", "--vocab-size", 300, text, "--out", out],
    "prepare": lambda run, text, out: [
        "data", "prepare", "--tokenizer", run / "tokenizer.json", text, "--out", out,
    ],
    "data verify": lambda run, text, out: ["data", "verify", run / "data"],
    "pretrain": lambda run, text, out: ["pretrain", "--resume", "--out", run, "--json"],
}  # fmt: skip


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def run_with(monkeypatch: pytest.MonkeyPatch, stdout: io.TextIOBase | None, arguments: list[object]) -> tuple[int, str]:
    """Exit code and stderr of a command whose stdout is `stdout`."""
    monkeypatch.setattr(sys, "argv", ["acorn", *map(str, arguments)])
    monkeypatch.setattr(sys, "stdout", stdout)
    said = io.StringIO()
    with signal_handlers_put_back(), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), said.getvalue()


@pytest.mark.fault(96)
@pytest.mark.parametrize("name", COMMANDS)
def test_stdout_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, run: Path, text_file: Path, tmp_path: Path, name: str
) -> None:
    """Fault 96: closed, or a file on a full disk: each command says that its result is lost, and exits with 6."""
    for stdout, why in ((None, "it is closed"), (Full(), "No space left on device")):
        out = tmp_path / f"out of {why}"
        code, said = run_with(monkeypatch, stdout, COMMANDS[name](run, text_file, out))
        assert code == 6, said
        assert f"The output could not be written to stdout: {why}." in said
        assert "fix:" in said
        assert "Traceback" not in said
        assert out.exists() == (name in ("train", "prepare"))  # files are written all the same


@pytest.mark.fault(96)
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_stdout_of_a_shell(redirection: str, unbuffered: str) -> None:
    """Fault 96: closed by a shell or redirected to a full disk, buffered or not; Python's exit does not fail."""
    if redirection == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"PYTHONUNBUFFERED={unbuffered} exec '{sys.executable}' -m acorn --version {redirection}"
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert done.stderr.startswith("acorn: The output could not be written to stdout: ")
    assert "Exception" not in done.stderr


@pytest.mark.fault(96)
def test_a_reader_that_closes_the_pipe() -> None:
    """Fault 96: the command ends without an error."""
    command = f"{{ '{sys.executable}' -m acorn --help; echo $? >&2; }} | true"
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "0\n"


@pytest.mark.fault(96)
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_stdout_of_another_encoding(monkeypatch: pytest.MonkeyPatch, finished: Path, encoding: str) -> None:
    """Fault 96: characters it cannot encode are escaped, with one note; JSON stays valid and has the same content."""
    prompt = "ภาษา 🌰"
    arguments = ["generate", finished, "--prompt", prompt, "--max-new-tokens", 3, "--seed", 1]
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    code, said = run_with(monkeypatch, shown, arguments)
    assert code == 0, said
    shown.seek(0)
    assert shown.read().startswith("\\u0e20\\u0e32\\u0e29\\u0e32 \\U0001f330")
    assert said.count(f"encoding of stdout, {encoding},") == 1
    whole = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    code, said = run_with(monkeypatch, whole, [*arguments, "--json"])
    assert code == 0, said
    whole.seek(0)
    assert json.loads(whole.read())["prompt"] == prompt
    assert "encoding of stdout" not in said


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "RUN", "--input", ""),
        ("evaluate", "RUN", "--input", "my.txt", ""),
        ("tokenizer", "train", "--input", "", "--out", "t.json"),
        ("tokenizer", "train", "my.txt", "", "--out", "t.json"),
        ("data", "prepare", "--tokenizer", "RUN/tokenizer.json", "--input", "", "--out", "shards"),
        ("data", "prepare", "--tokenizer", "RUN/tokenizer.json", 'data.valid_source=["", "my.txt"]', "my.txt"),
        ("pretrain", "small", 'data.source=["", "my.txt"]', "train.steps=1", "--out", "new"),
        ("pretrain", "small", "data.source=", "train.steps=1", "--out", "new"),
    ],
    ids=" ".join,
)
def test_an_empty_string_as_a_source(
    acorn, refused, finished: Path, tmp_path: Path, text_file: Path, arguments: tuple[str, ...]
) -> None:
    """Fault 97: as from an unset shell variable; it does not mean the current folder."""
    (tmp_path / "my.txt").write_bytes(text_file.read_bytes())
    if "prepare" in arguments and "--out" not in arguments:
        arguments = (*arguments, "--out", "shards")
    words = [word.replace("RUN", str(finished)) for word in arguments]
    refused(acorn(*words, cwd=tmp_path), 2, "fix:")
    assert [path.name for path in tmp_path.iterdir()] == ["my.txt"]


@pytest.mark.fault(98)
def test_a_penalty_beyond_single_precision(acorn, refused, finished: Path, tmp_path: Path) -> None:
    """Fault 98: 1e-45 is rounded to 0, a divisor; 1e-37 gives scores that are not finite."""
    folder = shutil.copytree(finished / "final", tmp_path / "loud")
    (folder / "manifest.json").unlink()  # a folder from another program has none
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = 1000 * tensors["model.norm.weight"]  # so that logits are in the hundreds
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    command = ("generate", folder, "--prompt", "the cat saw a dog", "--max-new-tokens", 20, "--ignore-eos", "--seed", 1)
    refused(acorn(*command, "--repetition-penalty", "1e-45"), 2, "repetition_penalty cannot be 1e-45", "give ")
    done = acorn(*command, "--repetition-penalty", "1e-37", "--json")  # detected before any output
    refused(done, 4, "logits are not finite", "repetition_penalty")


@pytest.mark.fault(98)
@pytest.mark.parametrize("override", ["optimizer.eps=1e-46", "model.rope_theta=1e39", "model.dropout=0.99999999"])
def test_a_setting_beyond_single_precision(pretrain, refused, tmp_path: Path, override: str) -> None:
    """Fault 98: refused before anything is written."""
    refused(pretrain(tmp_path / "run", override), 2, override.partition("=")[0], "single precision")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(99)
@pytest.mark.parametrize("options", [("--greedy",), ("--temperature", "1", "--top-k", "0", "--seed", "1")])
@pytest.mark.parametrize("decoder", ["torch", "auto"])
def test_the_unknown_token_is_not_generated(
    acorn, fine, finished_wordpiece: Path, options: tuple[str, ...], decoder: str
) -> None:
    """Fault 99: also not in samples during training; with --allow-unknown it may be."""
    tokenizer = Tokenizer.from_file(finished_wordpiece / "tokenizer.json")
    command = ("generate", finished_wordpiece, "--max-new-tokens", 40, "--ignore-eos", "--decoder", decoder, *options)
    done = acorn(*command, "--json")
    fine(done)
    assert tokenizer.unknown_id not in json.loads(done.stdout)["new_ids"]
    done = acorn(*command, "--allow-unknown", "--json")
    fine(done)
    assert json.loads(done.stdout)["new_ids"].count(tokenizer.unknown_id) > 10
    samples = [json.loads(line) for line in (finished_wordpiece / "samples.jsonl").read_text().splitlines()]
    assert all(len(sample["text"].split()) >= 3 for sample in samples)  # of 16 tokens each; [UNK] decodes to nothing
    config = json.loads((finished_wordpiece / "final" / "generation_config.json").read_text())
    assert config["suppress_tokens"] == [tokenizer.unknown_id]


@pytest.fixture(scope="session")
def finished_wordpiece(tmp_path_factory: pytest.TempPathFactory, pretrain, fine) -> Path:
    """A run on a text in which half of the words are unknown to the vocabulary: it generates mostly [UNK]."""
    folder = tmp_path_factory.mktemp("unknown")
    text = folder / "text.txt"
    text.write_text("".join(f"<unk> <unk> <unk> {n} <unk> .\n" for n in range(900)))
    settings = ("data.clean=wikitext", "tokenizer.kind=wordpiece", "tokenizer.vocab_size=40", "train.steps=30")
    more = (
        "optimizer.name=adamw",
        "optimizer.lr=0.01",
        "train.eval_every=0",
        "train.save_every=0",
        "train.sample_tokens=16",
    )
    fine(pretrain(folder / "run", f"data.source={text}", *settings, *more, text=None))
    return folder / "run"
