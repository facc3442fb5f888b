"""C files are compiled once, and where that fails the reason is told."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acorn.runtime import c_library as module
from acorn.runtime.c_library import c_library

FILES = [
    ("acorn.generate", "decode"),
    ("acorn.train", "native_loss"),
    ("acorn.train", "native_block"),
    ("acorn.train", "native_attention"),
    ("acorn.runtime", "fp16_product"),
]
needs_compiler = pytest.mark.skipif(isinstance(c_library(*FILES[0]), str), reason="needs a C compiler with OpenMP")


def knows_float16() -> bool:
    command = [os.environ.get("CC", "cc"), "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(command, input=b"_Float16 x;", capture_output=True).returncode == 0


@pytest.fixture(autouse=True)
def no_library_kept() -> Iterator[None]:
    c_library.cache_clear()
    yield
    c_library.cache_clear()


@pytest.mark.parametrize("file", FILES)
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: tuple[str, str]
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no openmp here >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    reason = c_library(*file)
    assert isinstance(reason, str)
    assert f"could not compile {file[1]}.c" in reason
    assert "no openmp here" in reason
    assert list((tmp_path / "cache" / "acorn").iterdir()) == []


def test_without_a_compiler_that_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert c_library(*FILES[1]) == "no C compiler was found (cc, gcc or clang)"


@needs_compiler
def test_it_is_compiled_once_for_a_machine_and_a_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library(*FILES[0]), str)
    (path,) = (tmp_path / "acorn").iterdir()
    assert path.name.startswith("decode-")
    assert path.suffix == ".so"
    c_library.cache_clear()
    compiled = []
    monkeypatch.setattr(module, "_compile", lambda *arguments: compiled.append(arguments))
    assert not isinstance(c_library(*FILES[0]), str)
    assert not compiled
    c_library.cache_clear()
    monkeypatch.setattr(module, "_instructions", lambda: ["another processor"])
    c_library(*FILES[0])
    assert len(compiled) == 1


@needs_compiler
def test_headers_in_the_working_directory_are_not_its_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors.h").write_text("#error another program's file\n")
    assert not isinstance(c_library(*FILES[1]), str)


@needs_compiler
def test_a_compiler_of_cplusplus_takes_it_for_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library(*FILES[1]), str)


@pytest.mark.parametrize("file", FILES)
def test_compilers_find_nothing_to_warn_of(cpu: str, file: tuple[str, str]) -> None:
    if file[1] in ("native_attention", "fp16_product") and not knows_float16():
        pytest.skip("needs a C compiler that knows _Float16")
    folder = Path(module.__file__).parent
    source = folder.parent / file[0].removeprefix("acorn.") / f"{file[1]}.c"
    command = [
        os.environ.get("CC", "cc"),
        *module.FLAGS,
        *(["-march=native"] if platform.machine() == "x86_64" else []),
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-psabi",
        "-I",
        str(folder),
        str(source),
        "-o",
        "/dev/null",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
