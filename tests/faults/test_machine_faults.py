"""A missing compiler, a damaged cache, and runs that are saved while they are read (faults 100 to 102)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Done

from acorn.checkpoint import training_state
from acorn.evaluate import harness
from acorn.kernels.build import c_library, find_compiler
from acorn.run_folder import RunFolder


@pytest.fixture
def no_library_loaded() -> Iterator[None]:
    c_library.cache_clear()
    yield
    c_library.cache_clear()


@pytest.mark.fault(100)
@pytest.mark.usefixtures("no_library_loaded")
def test_without_a_compiler(
    pretrain: Callable[..., Done],
    acorn: Callable[..., Done],
    fine: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 100: one line at the start says that training or generation is slower than it could be."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    done = pretrain(tmp_path / "run", "train.steps=2")
    fine(done, "Training steps are slower than they could be: no C compiler was found (install gcc or clang, or set")
    assert done.stderr.count("no C compiler") == 1
    done = acorn("generate", tmp_path / "run", "--prompt", "the", "--max-new-tokens", 2)
    fine(done, "Generation is slower than it could be: no C compiler was found")
    assert "C compiler" not in acorn("generate", tmp_path / "run", "--max-new-tokens", 2, "--decoder", "torch").stderr

    def evaluate_tasks(*arguments: Any, **options: Any) -> dict[str, Any]:
        write = arguments[4]
        return {"task": {"ids": sum(len(write(["the"], 2, (), {})[0]) for _ in range(2))}}

    monkeypatch.setattr(harness, "evaluate_tasks", evaluate_tasks)
    done = acorn("evaluate", tmp_path / "run", "--tasks", "any")
    fine(done, "Generation is slower than it could be: no C compiler was found")
    assert done.stderr.count("no C compiler") == 1


@pytest.mark.fault(100)
@pytest.mark.usefixtures("no_library_loaded")
@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
def test_a_read_only_cache(
    finished: Path,
    acorn: Callable[..., Done],
    fine: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 100: the C code is used all the same, and a note says why it is compiled each time."""
    (tmp_path / "acorn").write_text("in the folder's place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = acorn("generate", finished, "--prompt", "the", "--max-new-tokens", 2, "--decoder", "native")
    fine(done, "Each command compiles acorn's C code again, because the cache folder cannot be used", "XDG_CACHE_HOME")


@pytest.mark.fault(101)
@pytest.mark.usefixtures("no_library_loaded")
@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
def test_an_emptied_cached_library(
    finished: Path,
    acorn: Callable[..., Done],
    fine: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 101: it is compiled again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["generate", finished, "--prompt", "the", "--max-new-tokens", 2, "--seed", 1, "--decoder", "native"]
    before = acorn(*command)
    fine(before)
    (library,) = (tmp_path / "acorn").glob("decode-*.so")
    whole = library.read_bytes()
    library.unlink()  # this process has mapped it, so it must not change
    library.touch()
    c_library.cache_clear()
    after = acorn(*command)
    fine(after)
    assert after.stdout == before.stdout
    assert library.read_bytes() == whole


@pytest.mark.fault(102)
def test_a_run_that_is_saved_while_it_is_loaded(
    unfinished: Path,
    acorn: Callable[..., Done],
    fine: Callable[..., None],
    refused: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 102: the newer checkpoint is loaded; if the removed one was named, the message says that it is gone."""
    run = RunFolder(unfinished)
    later, earlier = tmp_path / "later", tmp_path / "earlier"
    shutil.move(run.checkpoint(8), later)
    shutil.copytree(run.checkpoint(4), earlier)
    real = training_state.load_tensors

    def load_tensors(path: Path) -> object:
        if later.exists():
            os.replace(later, run.checkpoint(8))
            shutil.rmtree(run.checkpoint(4))
        return real(path)

    monkeypatch.setattr(training_state, "load_tensors", load_tensors)
    done = acorn("generate", run.root, "--prompt", "the", "--max-new-tokens", 2)
    fine(done)
    assert "damaged" not in done.stderr
    shutil.move(earlier, run.checkpoint(4))
    shutil.move(run.checkpoint(8), later)
    done = acorn("generate", run.root / "checkpoints" / "step-00000004", "--max-new-tokens", 2)
    refused(done, 2, "name the run folder; its newest intact checkpoint is then used")
