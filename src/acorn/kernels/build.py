"""Compiles the C files of csrc/ once per machine, and loads them.

Needs a POSIX system and a C compiler with OpenMP (GCC, or Clang with its libomp). Libraries are stored in the cache
folder under a name that ends in the SHA-256 of their content. Loading a truncated library would crash the process, so
the content is compared with the name first; if they differ, the library is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from acorn.errors import AcornError
from acorn.files import remove_temporary_files, sha256_of, write_file
from acorn.kernels.prototypes import declare
from acorn.runtime.machine_cache import cache_folder, processor

FLAGS = ("-O3", "-fopenmp", "-shared", "-fPIC", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")
"""The compiler may reorder sums to vectorize them; infinities and NaN keep their meaning."""

TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Type of a tensor -> value in simd.h's `enum type`."""

SOURCES = {
    "training": (
        *("rmsnorm.c", "qk_norm_rope.c", "causal_softmax.c", "swiglu.c", "gelu.c"),
        *("cross_entropy.c", "transpose.c"),
    ),
    "fp16": ("matmul_fp16.c", "attention_fp16.c"),
    "decode": ("decode.c", "sample.c"),
}
"""Library -> its source files in csrc/. `fp16` needs a compiler that supports `_Float16`."""

COMPILE_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Unavailable:
    """A C library that is unavailable, and why."""

    reason: str


class CLibrary(ctypes.CDLL):
    """A loaded library.

    Attributes:
        note: a sentence for the user if the library could not be stored in the cache: why.
    """

    note: str | None = None


@functools.cache
def c_library(name: str) -> ctypes.CDLL | Unavailable:
    """The library `name` of SOURCES, compiled and loaded; or why it is unavailable and how to fix that, in one line.

    It is compiled once per machine, compiler and source. If the cache folder cannot be used, each process compiles it
    into a temporary folder.
    """
    if os.name != "posix":
        return Unavailable("acorn's C code is for Linux and macOS")
    compiler = find_compiler()
    if compiler is None:
        return Unavailable("no C compiler was found (install gcc or clang, or set the variable CC)")
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [*compiler, *FLAGS, "-mcpu=native" if arm else "-march=native"]
    sources = SOURCES[name]
    try:
        files = {
            file.name: file.read_bytes()
            for file in sorted(resources.files("acorn.kernels").joinpath("csrc").iterdir(), key=lambda file: file.name)
            if file.name.endswith(".h") or file.name in sources
        }
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=COMPILE_TIMEOUT_SECONDS).stdout
        key = hashlib.sha256(repr((files, command, version, processor())).encode()).hexdigest()[:24]
        library = _cached_or_temporary(f"{name}-{key}", lambda: _compile(command, files, sources))
        return declare(library, name)
    except subprocess.CalledProcessError as error:
        said = _first_error(error.stderr)
        return Unavailable(
            f"{command[0]} could not compile {', '.join(sources)} ({said}; set the variable CC to use another compiler)"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(f"{', '.join(sources)} could not be compiled or loaded ({_one_line(error)})")


def unavailability_note(libraries: Iterable[ctypes.CDLL | Unavailable], consequence: str) -> str | None:
    """One line for the user: the consequence and reason if a library is unavailable, or that one could not be cached.

    None if there is nothing to say.
    """
    note = None
    for library in libraries:
        if isinstance(library, Unavailable):
            return f"{consequence}: {library.reason}."
        note = note or (library.note if isinstance(library, CLibrary) else None)
    return note


def find_compiler() -> list[str] | None:
    """The C compiler of $CC, with its options, or else the first of cc, gcc and clang that is installed."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # an unclosed quotation mark
        named = []
    for program, *options in filter(None, (named, ["cc"], ["gcc"], ["clang"])):
        if path := shutil.which(program):
            return [path, *options]
    return None


def _cached_or_temporary(stem: str, compiled: Callable[[], bytes]) -> CLibrary:
    """The library `stem` from the cache folder, compiled if it is missing; else from a private temporary folder.

    Raises:
        OSError: it cannot be loaded from either folder, or cannot be compiled.
        SubprocessError: the compiler failed.
    """
    content, is_cached = b"", False
    try:
        folder = cache_folder()
        path = _intact_library(folder, stem)
        if path is None:
            content = compiled()
            path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.so"
            write_file(path, content)
            remove_temporary_files(folder)  # left by killed processes
        else:
            content = path.read_bytes()
        is_cached = True
        return CLibrary(str(path))
    except (OSError, RuntimeError, AcornError) as error:  # a folder that is full, read-only or mounted noexec
        reason = _one_line(error)
    content = content or compiled()
    try:
        with tempfile.TemporaryDirectory(prefix="acorn-", ignore_cleanup_errors=True) as place:
            path = Path(place, f"{stem}.so")
            path.write_bytes(content)
            library = CLibrary(str(path))  # stays loaded after its file is removed
    except OSError as error:
        is_noexec = "map segment" in str(error)
        advice = "; set XDG_CACHE_HOME to a folder that is not mounted noexec" if is_noexec else ""
        raise OSError(f"{reason}; {_one_line(error)}{advice}") from error
    if not is_cached:
        library.note = (
            f"Each command compiles acorn's C code again, because the cache folder cannot be used ({reason}): set "
            "XDG_CACHE_HOME to a writable folder."
        )
    return library


def _intact_library(folder: Path, stem: str) -> Path | None:
    """The file in `folder` that holds this library, intact. Removes damaged ones."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with contextlib.suppress(OSError):
            if sha256_of(path) == path.stem.rpartition("-")[2]:
                return path
            path.unlink()
    return None


def _compile(command: list[str], files: dict[str, bytes], sources: tuple[str, ...]) -> bytes:
    """The content of the library.

    Raises:
        OSError: no temporary folder can be created.
        SubprocessError: the compiler failed.
    """
    with tempfile.TemporaryDirectory(prefix="acorn-", ignore_cleanup_errors=True) as place:
        # All files in one folder: given source on standard input, compilers search the working directory for headers.
        for file, content in files.items():
            Path(place, file).write_bytes(content)
        output = Path(place, "library.so")
        as_c = [part for source in sources for part in ("-x", "c", f"{place}/{source}")]  # -x c per file, for g++
        subprocess.run(
            [*command, *as_c, "-o", str(output), "-lm"],
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
            timeout=COMPILE_TIMEOUT_SECONDS,
        )
        return output.read_bytes()


def _first_error(output: bytes) -> str:
    """The line of a compiler's output that describes the error."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "without a message")[:300]


def _one_line(error: Exception) -> str:
    what = f"{error.what} {error.where}" if isinstance(error, AcornError) else str(error)
    return " ".join(what.split())[:600] or type(error).__name__
