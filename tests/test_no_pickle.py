"""No pickle is ever opened: neither by acorn's own code, nor because a user or a downloaded folder names one.

Loading a pickle runs the code in it. The pickles in these tests would create a file, which shows that one was loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Done, run_acorn

from acorn.errors import InputError, UsageError
from acorn.files import seal, sha256_of
from acorn.pickles import PICKLE_ENDINGS, refuse_pickle
from acorn.run_folder import MANIFEST

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "acorn"

# --- what the code may not do: ruff's rules in pyproject.toml forbid it, and this checks the rules

UNSAFE = """\
import pickle
from pickle import loads
from dill import load as read
import shelve
import torch; torch.load("x")
import torch as t; t.load("x", weights_only=True)
from torch import load
import torch; save = torch.save
import torch; torch.hub.load("a", "b")
from torch.serialization import load
import numpy as np; np.load("x", allow_pickle=True)
from numpy import load
import numpy; numpy.lib.format.read_array(file)
import pandas as pd; pd.read_pickle("x")
eval("1")
exec("1")
import builtins; builtins.eval("1")
import importlib; importlib.import_module(name)
""".splitlines()

SAFE = """\
import re; re.compile("x")
import torch; torch.compile(model); model.eval()
import numpy as np; np.frombuffer(content)
from safetensors.torch import load_file; load_file("x")
"torch.load"
""".splitlines()


def test_ruff_refuses_code_that_loads_pickles_or_runs_text(tmp_path: Path) -> None:
    """Each line in its own file, because a second import would replace the first. src has none of them."""
    folder = tmp_path / "src" / "acorn"  # settings apply per folder
    folder.mkdir(parents=True)
    for kind, lines in (("unsafe", UNSAFE), ("safe", SAFE)):
        for number, line in enumerate(lines):
            (folder / f"{kind}{number:02}.py").write_text(line + "\n", "utf-8")
    assert flagged(folder) == {f"unsafe{number:02}.py" for number in range(len(UNSAFE))}
    assert flagged(SOURCE) == set()


def flagged(folder: Path) -> set[str]:
    """Names of the files below `folder` in which ruff finds banned code."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    rules = ["--select", "TID251,S102,S307", "--output-format", "json", str(folder)]
    done = subprocess.run([*command, *rules], capture_output=True, text=True, cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    return {Path(finding["filename"]).name for finding in json.loads(done.stdout)}


# --- what the commands may not open


class Bomb:
    """Creates a file when its pickle is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def write_plain(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


def write_text_protocol(path: Path, bomb: Bomb) -> None:
    """Protocol 0 is ASCII, so it looks like text."""
    path.write_bytes(pickle.dumps(bomb, protocol=0))


def write_array(path: Path, bomb: Bomb) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([bomb], dtype=object), allow_pickle=True)


def write_arrays(path: Path, bomb: Bomb) -> None:
    with open(path, "wb") as file:
        np.savez(file, weights=np.array([bomb], dtype=object))


def write_like_torch(path: Path, bomb: Bomb) -> None:
    """What torch.save writes: a zip with data.pkl in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


FORMS = {
    "model.pt": write_like_torch,
    "model.pth": write_text_protocol,
    "last.ckpt": write_plain,
    "model.pkl": write_plain,
    "model.PKL": write_text_protocol,
    "array.npy": write_array,
    "arrays.npz": write_arrays,
    "pytorch_model.bin": write_plain,
}
WRITERS: list[Callable[[Path, Bomb], None]] = [
    write_plain,
    write_text_protocol,
    write_array,
    write_arrays,
    write_like_torch,
]
SOME_WRITERS = [
    writer if writer in (write_plain, write_like_torch) else pytest.param(writer, marks=pytest.mark.slow)
    for writer in WRITERS
]
"""Binary, and in a zip; the other forms are slow tests where each takes a whole command."""

SOME_FORMS = ("model.pt", "model.PKL", "arrays.npz")
"""Of each kind of ending one, and one in capitals; `test_pickles_are_refused_by_name` has all of them."""


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that must not be created."""
    path = tmp_path / "pwned"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("writer", WRITERS)
def test_the_malicious_pickles_work(tmp_path: Path, writer: Callable[[Path, Bomb], None]) -> None:
    """Otherwise, the tests in this file would prove nothing."""
    path, marker = tmp_path / "bomb", tmp_path / "pwned"
    writer(path, Bomb(marker))
    assert not marker.exists()
    if writer in (write_array, write_arrays):
        loaded = np.load(path, allow_pickle=True)
        _ = loaded["weights"] if writer is write_arrays else loaded
    elif writer is write_like_torch:
        pickle.loads(zipfile.ZipFile(path).read("archive/data.pkl"))
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


_opened: list[str] | None = None


def _remember(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: records every file that this process opens, from any library."""
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_remember)


@contextlib.contextmanager
def never_opened(*paths: Path) -> Iterator[None]:
    global _opened
    _opened = []
    try:
        yield
        for path in paths:
            assert os.path.realpath(path) not in _opened, f"{path} was opened"
    finally:
        _opened = None


def test_opened_files_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(AssertionError, match="was opened"), never_opened(path):
        path.read_bytes()
    with never_opened(path):
        assert path.is_file()


def refused(done: Done) -> None:
    assert done.returncode in (2, 3, 4), done
    assert "Traceback" not in done.stderr
    assert not done.stdout or done.stdout.startswith("DAMAGED")  # what `acorn verify` prints for each folder


# Where a command takes a path. {bad}: the pickle; {text}, {tokenizer}, {run}: valid ones; {out}: a new path.
COMMANDS = [
    "pretrain {bad} --out {out}",
    "pretrain {bad} data.source={text} train.steps=1 --out {out}",
    "pretrain small data.source={bad} train.steps=1 --out {out}",
    "pretrain small data.source={text} data.valid_source={bad} train.steps=1 --out {out}",
    "pretrain small data.source={text} data.test_source={bad} train.steps=1 --out {out}",
    "pretrain small data.shards={bad} train.steps=1 --out {out}",
    "pretrain small data.source={text} tokenizer.path={bad} train.steps=1 --out {out}",
    "pretrain --resume --out {bad}",
    "pretrain small data.source={text} train.steps=1 --out {bad}",
    "tokenizer inspect {bad}",
    "tokenizer inspect {bad} --text hello",
    "tokenizer train --vocab-size 300 --out {out} --input {bad}",
    "tokenizer train --vocab-size 300 --out {out} {bad}",
    "data prepare --tokenizer {bad} --out {out} --input {text}",
    "data prepare --tokenizer {tokenizer} --out {out} --input {bad}",
    "data prepare --tokenizer {tokenizer} --out {out} {bad}",
    "data verify {bad}",
    "evaluate {bad}",
    "evaluate {bad} --checkpoint best",
    "evaluate {run}/final --input {bad}",
    "generate {bad}",
    "verify {bad}",
    "report {bad}",
    "report {run} --compare {bad}",
    "report {run} {bad}",
    "plan {bad}",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A text, and a finished run of it."""
    root = tmp_path_factory.mktemp("good")
    text = root / "my.txt"
    text.write_text("".join(f"Sentence {n} says that {n} and {n + 1} make {2 * n + 1}.\n" for n in range(200)))
    run = root / "run"
    shape = "tokenizer.vocab_size=280 model.n_layer=1 model.n_embd=16 model.n_head=2 model.block_size=16"
    length = "train.steps=2 train.batch_size=2 train.compile=false train.precision=fp32 train.threads=1"
    settings = f"pretrain small data.source={text} {shape} {length} train.sample_tokens=2 --out {run}"
    done = run_acorn(*settings.split(), cwd=root)
    assert done.returncode == 0, done.stderr
    return {"text": text, "run": run, "tokenizer": run / "tokenizer.json"}


def filled(command: str, good: dict[str, Path], tmp_path: Path, bad: Path) -> list[str]:
    places = {**good, "bad": bad, "out": tmp_path / "out"}
    return [part.format(**places) for part in command.split()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("names", [SOME_FORMS, pytest.param(FORMS, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_pickle_named_to_a_command_is_refused_unopened(
    command: str, names: Sequence[str], good: dict[str, Path], tmp_path: Path, marker: Path
) -> None:
    for name in names:
        bad = tmp_path / name
        FORMS[name](bad, Bomb(marker))
        with never_opened(bad):
            done = run_acorn(*filled(command, good, tmp_path, bad), cwd=tmp_path)
        refused(done)
        assert "fix:" in done.stderr
        assert not marker.exists(), name


FOLDER_COMMANDS = [command for command in COMMANDS if "--out {bad}" not in command and "{bad} --out" not in command]


@pytest.mark.parametrize("command", FOLDER_COMMANDS)
def test_pickles_in_a_folder_named_to_a_command_are_not_opened(
    command: str, good: dict[str, Path], tmp_path: Path, marker: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, writer in FORMS.items():
        writer(folder / name, Bomb(marker))
    with never_opened(*(folder / name for name in FORMS)):
        refused(run_acorn(*filled(command, good, tmp_path, folder), cwd=tmp_path))


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if "source={bad}" in command or "--input {bad}" in command]
)
def test_a_hub_folder_of_pickles_is_refused(command: str, good: dict[str, Path], tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, writer in FORMS.items():
        writer(folder / f"train-{name}", Bomb(marker))
    refused(run_acorn(*filled(command.replace("{bad}", "hf:{bad}"), good, tmp_path, folder), cwd=tmp_path))


# Names of files that are read: their content must be refused.
DISGUISES = {
    "pretrain {bad} --out {out}": "config.toml",
    "plan {bad}": "config.toml",
    "tokenizer inspect {bad}": "tokenizer.json",
    "pretrain small data.source={text} tokenizer.path={bad} train.steps=1 --out {out}": "tokenizer.json",
    "data prepare --tokenizer {bad} --out {out} --input {text}": "tokenizer.json",
    "tokenizer train --vocab-size 300 --out {out} --input {bad}": "text.jsonl",
    "data prepare --tokenizer {tokenizer} --out {out} --input {bad}": "text.parquet",
    "pretrain small data.source={bad} train.steps=1 --out {out}": "text.txt.gz",
    "evaluate {run}/final --input {bad}": "text.txt.xz",
}


@pytest.mark.parametrize("command", DISGUISES)
@pytest.mark.parametrize("writer", SOME_WRITERS)
def test_a_pickle_under_another_name_is_refused(
    command: str, writer: Callable[[Path, Bomb], None], good: dict[str, Path], tmp_path: Path, marker: Path
) -> None:
    bad = tmp_path / DISGUISES[command]
    writer(bad, Bomb(marker))
    refused(run_acorn(*filled(command, good, tmp_path, bad), cwd=tmp_path))


def fit(folder: Path) -> None:
    """Updates a folder's manifest to its current files, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    manifest["files"] = {
        name: {"sha256": sha256_of(folder / name), "bytes": (folder / name).stat().st_size} for name in names
    }
    value = seal({key: value for key, value in manifest.items() if key != "manifest_sha256"})
    (folder / MANIFEST).write_text(json.dumps(value))


IN_PLACE = [
    ("run/checkpoints/step-00000002", "model.safetensors"),
    ("run/checkpoints/step-00000002", "optimizer.safetensors"),
    ("run/checkpoints/step-00000002", "state.json"),
    ("run/checkpoints/step-00000002", "config.toml"),
    ("run/checkpoints/step-00000002", "tokenizer.json"),
    ("run/final", "model.safetensors"),
    ("run/final", "config.json"),
    ("run/final", "tokenizer.json"),
    ("run/data", "tokenizer.json"),
]


@pytest.mark.parametrize(("folder", "name"), IN_PLACE)
@pytest.mark.parametrize("writer", SOME_WRITERS)
def test_a_pickle_in_place_of_a_file_is_refused(
    folder: str, name: str, writer: Callable[[Path, Bomb], None], good: dict[str, Path], tmp_path: Path, marker: Path
) -> None:
    """With a manifest that has its checksum."""
    shutil.copytree(good["run"], tmp_path / "run")
    here = tmp_path / folder
    writer(here / name, Bomb(marker))
    fit(here)
    if folder == "run/data":
        shards = run_acorn(
            "pretrain", "small", f"data.shards={here}", "train.steps=1", "--out", tmp_path / "out", cwd=tmp_path
        )
        refused(shards)
        return
    if name != "optimizer.safetensors":
        refused(run_acorn("generate", here, cwd=tmp_path))
        refused(run_acorn("evaluate", here, "--input", good["text"], cwd=tmp_path))
    if "checkpoints" in folder:
        refused(run_acorn("pretrain", "--resume", "--out", tmp_path / "run", "train.steps=3", cwd=tmp_path))


@pytest.mark.parametrize("folder", ["run/checkpoints/step-00000002", "run/final", "run/data"])
def test_an_additional_pickle_is_not_opened(folder: str, good: dict[str, Path], tmp_path: Path, marker: Path) -> None:
    """A new file whose checksum is in the manifest is not opened, whatever else is read."""
    shutil.copytree(good["run"], tmp_path / "run")
    here = tmp_path / folder
    for name, writer in FORMS.items():
        writer(here / name, Bomb(marker))
    fit(here)
    for command in (
        ["verify", here],
        ["verify", tmp_path / "run"],
        ["generate", here],
        ["evaluate", here],
        ["data", "verify", here],
    ):
        done = run_acorn(*command, cwd=tmp_path)
        assert done.returncode in (0, 2, 3, 4), done
        assert "Traceback" not in done.stderr


def test_pickles_are_refused_by_name() -> None:
    for ending in PICKLE_ENDINGS:
        for name in (f"a{ending}", f"a{ending.upper()}", f"a.b{ending}"):
            with pytest.raises(InputError, match="pickle by its name"):
                refuse_pickle(Path(name), "here")
            with pytest.raises(UsageError):
                refuse_pickle(Path(name), "here", kind=UsageError)
    for name in ("a.toml", "a.json", "pt", ".pt", "a.pt.json", "a.txt", "a.safetensors"):
        refuse_pickle(Path(name), "here")
