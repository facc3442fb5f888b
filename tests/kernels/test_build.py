"""C files are compiled once, and a failure is reported with its reason."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from acorn.kernels import build as module
from acorn.kernels.build import SOURCES, Unavailable, c_library, find_compiler, unavailability_note

needs_compiler = pytest.mark.skipif(
    isinstance(c_library("decode"), Unavailable), reason="needs a C compiler with OpenMP"
)


def supports_float16() -> bool:
    command = [os.environ.get("CC", "cc"), "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(command, input=b"_Float16 x;", capture_output=True).returncode == 0


QUICK = ("-O0", *module.FLAGS[1:])
"""Without optimization, because most tests here only compile."""


@pytest.fixture
def quick_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLAGS", QUICK)


@pytest.fixture(autouse=True)
def no_cached_library() -> Iterator[None]:
    c_library.cache_clear()
    yield
    c_library.cache_clear()


@pytest.mark.parametrize("name", SOURCES)
def test_a_failing_compiler_is_quoted_and_leaves_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho In file included from here: >&2; echo error: no openmp here >&2; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = c_library(name)
    assert isinstance(found, Unavailable)
    assert f"could not compile {', '.join(SOURCES[name])}" in found.reason
    assert "no openmp here" in found.reason
    assert "\n" not in found.reason
    assert list((tmp_path / "cache" / "acorn").iterdir()) == []


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = c_library("training")
    assert found == Unavailable("no C compiler was found (install gcc or clang, or set the variable CC)")
    assert unavailability_note([found, found], "Slower") == f"Slower: {found.reason}."


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_cc_with_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", f"{shutil.which('cc') or shutil.which('gcc')} -DOF_NO_MEANING")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_compiler()[1:] == ["-DOF_NO_MEANING"]  # type: ignore[index]
    assert not isinstance(c_library("training"), Unavailable)
    monkeypatch.setenv("CC", "'never closed")
    assert find_compiler()[1:] == []  # type: ignore[index]


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_compiled_once_per_machine_and_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = c_library("training")
    assert unavailability_note([library], "Slower") is None
    (path,) = (tmp_path / "acorn").iterdir()
    assert path.name.startswith("training-")
    assert path.name.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()}.so")
    c_library.cache_clear()
    compiled: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "_compile", lambda *arguments: compiled.append(arguments) or b"no library")
    assert not isinstance(c_library("training"), Unavailable)
    assert not compiled
    c_library.cache_clear()
    monkeypatch.setattr(module, "processor", lambda: ["another processor"])
    assert isinstance(c_library("training"), Unavailable)
    assert len(compiled) == 1


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
@pytest.mark.parametrize("damage", ["empty", "cut", "one bit", "a folder"])
def test_a_damaged_cached_library_is_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library("training"), Unavailable)
    (path,) = (tmp_path / "acorn").iterdir()
    whole = path.read_bytes()
    path.unlink()  # this process has mapped it, so it must not change
    if damage == "a folder":
        path.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes({"empty": b"", "cut": whole[:8192], "one bit": bytes(flipped)}[damage])
    if damage == "cut":  # in a separate process: loading it would crash
        program = "print(build.c_library('training').swiglu_forward)"
        program = f"from acorn.kernels import build; build.FLAGS = {QUICK}; {program}"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, (done.returncode, done.stderr)
    else:
        c_library.cache_clear()
        assert not isinstance(c_library("training"), Unavailable)
    if damage != "a folder":  # acorn must not remove a folder
        assert path.read_bytes() == whole


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_a_read_only_cache_is_reported_and_the_library_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "acorn").write_text("a file in its place, which not even root can write into")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    library = c_library("training")
    assert not isinstance(library, Unavailable)
    assert library.swiglu_forward
    line = str(unavailability_note([library, library], "Slower"))
    assert line.startswith("Each command compiles acorn's C code again, because the cache folder cannot be used (")
    assert str(tmp_path / "acorn") in line
    assert "XDG_CACHE_HOME" in line
    assert list(temporary.iterdir()) == []


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_a_noexec_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading from a folder mounted noexec fails. The cached file is copied, and not compiled again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = module.CLibrary
    places: list[Path] = []

    def load(path: str) -> module.CLibrary:
        places.append(Path(path).parent)
        if path.startswith(str(tmp_path)):
            raise OSError("failed to map segment from shared object: Operation not permitted")
        return real(path)

    assert not isinstance(c_library("training"), Unavailable)
    c_library.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "CLibrary", load)
        patch.setattr(module, "_compile", lambda *arguments: pytest.fail("compiled"))
        library = c_library("training")
    assert not isinstance(library, Unavailable)
    assert unavailability_note([library], "Slower") is None  # copying the library for each process is cheap
    assert places[0] == tmp_path / "acorn"
    assert not places[1].exists()
    c_library.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "CLibrary", lambda path: load(f"{tmp_path}"))  # nor can the temporary one
        reason = c_library("training")
    assert isinstance(reason, Unavailable)
    assert "could not be compiled or loaded (failed to map segment" in reason.reason
    assert "\n" not in reason.reason


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_headers_in_the_working_directory_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simd.h").write_text("#error another program's file\n")
    assert not isinstance(c_library("training"), Unavailable)


@needs_compiler
@pytest.mark.usefixtures("quick_to_compile")
def test_a_cplusplus_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(c_library("training"), Unavailable)


@pytest.mark.parametrize("name", SOURCES)
def test_no_compiler_warnings(cpu: str, name: str) -> None:
    if name == "fp16" and not supports_float16():
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


def test_every_c_file_belongs_to_a_library() -> None:
    files = [path.name for path in (Path(module.__file__).parent / "csrc").glob("*.c")]
    assert sorted(files) == sorted(source for sources in SOURCES.values() for source in sources)
