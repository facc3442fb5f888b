"""Fixtures: commands as a user runs them, tiny runs to damage, and failing disks, files and folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, run_acorn
from quick_endings import quick_endings

__all__ = ["quick_endings"]

SETTINGS = [
    "tokenizer.vocab_size=300",
    "model.n_layer=1",
    "model.n_embd=32",
    "model.block_size=32",
    "train.steps=8",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.eval_every=4",
    "train.eval_tokens=500",
    "train.save_every=4",
    "train.sample_every=0",
    "train.sample_tokens=4",
    "train.compile=false",
    "train.precision=fp32",
    "train.threads=1",
]
"""A short run, which leaves the checkpoints of steps 4 and 8."""

WORDS = "the cat dog bird saw ate found a small red old house tree and then it slept again"


def words_of(text: str) -> str:
    """A message without line breaks, because the terminal may wrap lines anywhere."""
    return " ".join(text.split())


def check_refused(done: Done, code: int, *parts: str) -> None:
    """The exit code; one message that says what, where and how to fix it; no traceback; no result."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("acorn: ") == 1, done.stderr
    assert "  where: " in done.stderr, done.stderr
    assert "  fix:   " in done.stderr, done.stderr
    for part in parts:
        assert words_of(part) in words_of(done.stderr)


def check_fine(done: Done, *parts: str) -> None:
    """Checks exit code 0 and parts of the notes for the user."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert words_of(part) in words_of(done.stderr)


def digest_of(folder: Path) -> dict[str, str]:
    """Everything below `folder` (or the file itself), by path: contents of files, names of folders and links.

    Lock files are no content: they say who looked at the folder last.
    """
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        if path.name == ".lock":
            continue
        is_content = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if is_content else "-"
    return found


@pytest.fixture(scope="session")
def acorn() -> Callable[..., Done]:
    return run_acorn


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    return check_refused


@pytest.fixture(scope="session")
def fine() -> Callable[..., None]:
    return check_fine


@pytest.fixture(scope="session")
def digest() -> Callable[[Path], dict[str, str]]:
    return digest_of


@pytest.fixture(scope="session")
def untouched() -> Callable[..., Any]:
    """`with untouched(path, ...)`: checks that nothing below these paths changes inside the block."""

    @contextlib.contextmanager
    def check(*paths: Path) -> Iterator[None]:
        before = [digest_of(path) for path in paths]
        yield
        assert [digest_of(path) for path in paths] == before

    return check


@pytest.fixture(scope="session")
def settings() -> list[str]:
    return SETTINGS


def random_text(lines: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS.split(), k=draw.randint(4, 12))) + ".\n" for _ in range(lines))


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 24 KB of random sentences, the same each time."""
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text(random_text(600))
    return path


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes random rows, and then the given ones, to `name` (a .jsonl)."""
    import json

    def write(name: str, *more: str, rows: int = 60, seed: int = 0) -> Path:
        lines = [json.dumps({"text": line}) for line in random_text(rows, seed).splitlines()]
        path = tmp_path / name
        path.write_text("\n".join([*lines, *more]) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def pretrain(text_file: Path) -> Callable[..., Done]:
    """`acorn pretrain` with tiny settings; later overrides win. `text=None`: no text is named."""

    def run(out: Path, *more: str, text: Path | None = text_file) -> Done:
        source = [f"data.source={text}"] if text else []
        options = [word for word in more if word.startswith("--")]
        overrides = [word for word in more if not word.startswith("--")]
        return run_acorn("pretrain", "small", *source, *SETTINGS, *overrides, "--out", out, *options)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pretrain: Callable[..., Done]) -> Path:
    """A finished run, which tests must not change."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    check_fine(pretrain(out))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to damage."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def unfinished(run: Path) -> Path:
    """The same run as if it had been killed right after its last checkpoint."""
    shutil.rmtree(run / "final")
    for name in ("evaluation.json", "loss.png", "report.html"):
        (run / name).unlink()
    return run


@pytest.fixture(scope="session")
def tokenizer_file(finished: Path) -> Path:
    return finished / "tokenizer.json"


@pytest.fixture
def shards(tokenizer_file: Path, text_file: Path, tmp_path: Path) -> Path:
    """A folder of token shards to damage."""
    out = tmp_path / "shards"
    check_fine(run_acorn("data", "prepare", "--tokenizer", tokenizer_file, "--input", text_file, "--out", out))
    return out


@pytest.fixture(scope="session")
def flip() -> Callable[[Path], None]:
    """Flips one bit in the middle of a file."""

    def turn(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return turn


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Makes renames fail with a disk error if `where(target)` is true; returns the list of targets."""
    real = os.replace

    def inject(where: Callable[[Path], bool], number: int = errno.ENOSPC) -> list[Path]:
        failed: list[Path] = []

        def replace(source: Any, target: Any) -> None:
            if where(Path(target)):
                failed.append(Path(target))
                raise OSError(number, os.strerror(number), str(target))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        return failed

    return inject


_recorders: list[list[str]] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _recorders and isinstance(arguments[0], str | bytes | os.PathLike):
        for recorder in _recorders:
            recorder.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_record)  # sees every file that Python code opens; audit hooks cannot be removed


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The real paths of all files that Python opened during the test."""
    recorder: list[str] = []
    _recorders.append(recorder)
    yield recorder
    _recorders.remove(recorder)


@pytest.fixture
def named_pipe(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Creates a named pipe. A reader, which is against the rule, finds it empty instead of blocking forever."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("named pipes are a thing of POSIX systems")
    made: list[tuple[Path, threading.Thread]] = []
    over = threading.Event()

    def keep_writing(path: Path) -> None:
        while not over.is_set():
            open(path, "wb").close()  # blocks until there is a reader

    def make(name: str) -> Path:
        path = tmp_path / name
        os.mkfifo(path)
        writer = threading.Thread(target=keep_writing, args=(path,), daemon=True)
        writer.start()
        made.append((path, writer))
        return path

    yield make
    over.set()
    for path, writer in made:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # unblocks the writer
        writer.join()
        os.close(reader)


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Calls a function after a given training step was reported."""
    from acorn.report.terminal import TrainingLine

    real = TrainingLine.step
    actions: dict[int, Callable[[], None]] = {}

    def step(self: TrainingLine, record: Any, done: float, seconds_left: float | None) -> None:
        real(self, record, done, seconds_left)
        if action := actions.pop(record["step"], None):
            action()

    def register(number: int, action: Callable[[], None]) -> None:
        actions[number] = action
        monkeypatch.setattr(TrainingLine, "step", step)

    return register


@pytest.fixture
def stop_after(after_step: Callable[[int, Callable[[], None]], None]) -> Callable[[int], None]:
    """Sends SIGTERM to the run after a step was reported."""
    return lambda number: after_step(number, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, Any], Any]], None]:
    """Replaces each step's loss (a tensor) by `change(step, loss)` before the backward."""
    from acorn.train import loop
    from acorn.train.forward_backward import eager_forward_backward

    real = loop.train_step

    def inject(change: Callable[[int, Any], Any]) -> None:
        def changed(model: Any, _: Any, *arguments: Any, counters: Any, runtime: Any, **options: Any) -> Any:
            def other(*batch: Any) -> Any:
                loss, count = model(*batch)
                return change(counters.step + 1, loss), count

            forward_backward = eager_forward_backward(other, runtime)
            return real(model, forward_backward, *arguments, counters=counters, runtime=runtime, **options)

        monkeypatch.setattr(loop, "train_step", changed)

    return inject


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips what takes most of a tiny run's time: flushing, measuring the machine, and plotting the curve."""
    from acorn.run import finish, lifecycle
    from acorn.run.peak import Peak

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(lifecycle, "machine_peak", lambda runtime: Peak(1e11, "nothing"))
    monkeypatch.setattr(finish, "write_loss_picture", lambda root: (root / "loss.png").touch())
