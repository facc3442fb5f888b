"""C files are compiled once, and where that fails the reason is told."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acorn.kernels import build as module
from acorn.kernels.build import SOURCES, Unavailable, c_library

needs_compiler = pytest.mark.skipif(
    isinstance(c_library("decode"), Unavailable), reason="needs a C compiler with OpenMP"
)


def knows_float16() -> bool:
    command = [os.environ.get("CC", "cc"), "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(command, input=b"_Float16 x;", capture_output=True).returncode == 0


@pytest.fixture(autouse=True)
def no_library_kept() -> Iterator[None]:
    c_library.cache_clear()
    yield
    c_library.cache_clear()


@pytest.mark.parametrize("name", SOURCES)
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no openmp here >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = c_library(name)
    assert isinstance(found, Unavailable)
    assert f"could not compile {', '.join(SOURCES[name])}" in found.reason
    assert "no openmp here" in found.reason
    assert list((tmp_path / "cache" / "acorn").iterdir()) == []


def test_without_a_compiler_that_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert c_library("training") == Unavailable("no C compiler was found (cc, gcc or clang)")


@needs_compiler
def test_it_is_compiled_once_for_a_machine_and_a_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library("decode"), Unavailable)
    (path,) = (tmp_path / "acorn").iterdir()
    assert path.name.startswith("decode-")
    assert path.suffix == ".so"
    c_library.cache_clear()
    compiled = []
    monkeypatch.setattr(module, "_compile", lambda *arguments: compiled.append(arguments))
    assert not isinstance(c_library("decode"), Unavailable)
    assert not compiled
    c_library.cache_clear()
    monkeypatch.setattr(module, "_instructions", lambda: ["another processor"])
    c_library("decode")
    assert len(compiled) == 1


@needs_compiler
def test_headers_in_the_working_directory_are_not_its_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simd.h").write_text("#error another program's file\n")
    assert not isinstance(c_library("training"), Unavailable)


@needs_compiler
def test_a_compiler_of_cplusplus_takes_it_for_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library("training"), Unavailable)


@pytest.mark.parametrize("name", SOURCES)
def test_compilers_find_nothing_to_warn_of(cpu: str, name: str) -> None:
    if name == "fp16" and not knows_float16():
        pytest.skip("needs a C compiler that knows _Float16")
    folder = Path(module.__file__).parent / "csrc"
    command = [
        os.environ.get("CC", "cc"),
        *module.FLAGS,
        *(["-march=native"] if platform.machine() == "x86_64" else []),
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-psabi",
        *(str(folder / source) for source in SOURCES[name]),
        "-o",
        "/dev/null",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_c_file_is_part_of_a_library() -> None:
    files = [path.name for path in (Path(module.__file__).parent / "csrc").glob("*.c")]
    assert sorted(files) == sorted(source for sources in SOURCES.values() for source in sources)
