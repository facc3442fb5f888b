"""A runtime that fails or crashes is a message, whatever it does to its process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from acorn.errors import DamageError
from acorn.export.runtimes import RUNTIMES, Question, ask

QUESTION = Question(["a"], [[0, 1]], [([0], [1])])


def interpreter(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_crash_of_the_runtime_gives_a_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", "kill -SEGV $$"))
    with pytest.raises(DamageError, match=r"llama.cpp cannot use the exported model: it crashed \(SIGSEGV\)\.\n"):
        ask(RUNTIMES["gguf"], tmp_path / "model.gguf", QUESTION)


def test_the_last_line_of_output_is_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", "echo no such tensor >&2; exit 3"))
    with pytest.raises(DamageError, match=r"transformers cannot use the exported model: no such tensor\.\n"):
        ask(RUNTIMES["hf"], tmp_path, QUESTION)


def test_a_file_that_is_not_a_model_gives_a_clear_message(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python takes minutes to build; extra `llama`")
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but only by its first letters")
    with pytest.raises(DamageError, match=r"llama.cpp cannot use the exported model: .*model\.gguf"):
        ask(RUNTIMES["gguf"], tmp_path / "model.gguf", QUESTION)
