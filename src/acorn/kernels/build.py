"""The C files of csrc/: compiled once for this machine, then loaded.

It takes a POSIX system and a C compiler with OpenMP (GCC, or Clang with its libomp). Libraries are kept in the cache of
this machine under a name that ends in the SHA-256 of their content. Loading one that was cut short is a crash, so the
content is compared with the name first, and compiled again where they differ.
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
"""Sums may be added up in any order, so that they fit vectors; infinities and NaN keep their meaning."""

TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Type of a tensor -> number of simd.h's `enum type`."""

SOURCES = {
    "training": (
        *("rmsnorm.c", "qk_norm_rope.c", "causal_softmax.c", "swiglu.c", "gelu.c"),
        *("cross_entropy.c", "transpose.c"),
    ),
    "fp16": ("matmul_fp16.c", "attention_fp16.c"),
    "decode": ("decode.c",),
}
"""Library -> the files of csrc/ that it is made of. What is in fp16 wants a compiler that knows `_Float16`."""

COMPILE_TIMEOUT = 60  # seconds; it takes a few


@dataclass(frozen=True)
class Unavailable:
    """Something in C cannot be had, and why."""

    reason: str


class CLibrary(ctypes.CDLL):
    """A loaded library.

    Attributes:
        note: why it could not be kept for the next command, if so; a sentence for the user.
    """

    note: str | None = None


@functools.cache
def c_library(name: str) -> ctypes.CDLL | Unavailable:
    """The library `name` of SOURCES, compiled and loaded; or why not and what to do about it, in one line.

    One compilation serves a machine, compiler and source. Where the cache folder cannot be used, a private temporary
    folder is, and each process compiles for itself.
    """
    if os.name != "posix":
        return Unavailable("acorn's C code is for Linux and macOS")
    compiler = find_compiler()
    if compiler is None:
        return Unavailable("no C compiler was found (install gcc or clang, or name one in the variable CC)")
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [*compiler, *FLAGS, "-mcpu=native" if arm else "-march=native"]
    sources = SOURCES[name]
    try:
        files = {
            file.name: file.read_bytes()
            for file in sorted(resources.files("acorn.kernels").joinpath("csrc").iterdir(), key=lambda file: file.name)
            if file.name.endswith(".h") or file.name in sources
        }
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=COMPILE_TIMEOUT).stdout
        key = hashlib.sha256(repr((files, command, version, processor())).encode()).hexdigest()[:24]
        library = _kept_or_private(f"{name}-{key}", lambda: _compile(command, files, sources))
        return declare(library, name)
    except subprocess.CalledProcessError as error:
        said = _first_error(error.stderr)
        return Unavailable(
            f"{command[0]} could not compile {', '.join(sources)} ({said}; the variable CC names another)"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Unavailable(f"{', '.join(sources)} could not be compiled or loaded ({_one_line(error)})")


def what_to_tell(libraries: Iterable[ctypes.CDLL | Unavailable], consequence: str) -> str | None:
    """One line for the user: a library is missing, with its consequence, or could not be kept. None: all is well."""
    told = None
    for library in libraries:
        if isinstance(library, Unavailable):
            return f"{consequence}: {library.reason}."
        told = told or (library.note if isinstance(library, CLibrary) else None)
    return told


def find_compiler() -> list[str] | None:
    """The C compiler that $CC names, with its options, or the first that is there."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError:  # a quotation that is not closed
        named = []
    for program, *options in filter(None, (named, ["cc"], ["gcc"], ["clang"])):
        if path := shutil.which(program):
            return [path, *options]
    return None


def _kept_or_private(stem: str, compiled: Callable[[], bytes]) -> CLibrary:
    """The library `stem` of the cache folder, compiled where it is missing; else one of a private temporary folder.

    Raises:
        OSError: it cannot be loaded from either, or not be compiled.
        SubprocessError: it cannot be compiled.
    """
    content, is_kept = b"", False
    try:
        folder = cache_folder()
        path = _whole_library(folder, stem)
        if path is None:
            content = compiled()
            path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.so"
            write_file(path, content)
            remove_temporary_files(folder)  # of processes that were killed
        else:
            content = path.read_bytes()
        is_kept = True
        return CLibrary(str(path))
    except (OSError, RuntimeError, AcornError) as error:  # such as a folder that is full, read-only or not to run from
        reason = _one_line(error)
    content = content or compiled()
    try:
        with tempfile.TemporaryDirectory(prefix="acorn-", ignore_cleanup_errors=True) as place:
            path = Path(place, f"{stem}.so")
            path.write_bytes(content)
            library = CLibrary(str(path))  # and stays loaded when its file is gone
    except OSError as error:
        advice = "; let XDG_CACHE_HOME name a folder that can be run from" if "map segment" in str(error) else ""
        raise OSError(f"{reason}; {_one_line(error)}{advice}") from error
    if not is_kept:
        library.note = (
            f"Each command compiles acorn's C code anew, since the cache cannot be used ({reason}): let XDG_CACHE_HOME "
            "name a folder that can be written."
        )
    return library


def _whole_library(folder: Path, stem: str) -> Path | None:
    """The file in `folder` that holds this library whole. What is there under such a name and is not goes."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with contextlib.suppress(OSError):
            if sha256_of(path) == path.stem.rpartition("-")[2]:
                return path
            path.unlink()
    return None


def _compile(command: list[str], files: dict[str, bytes], sources: tuple[str, ...]) -> bytes:
    """The content of the library.

    Raises:
        OSError: there is no folder for temporary files.
        SubprocessError: the compiler fails.
    """
    with tempfile.TemporaryDirectory(prefix="acorn-", ignore_cleanup_errors=True) as place:
        # The sources beside them: of one on its standard input, compilers look for headers in the working directory.
        for file, content in files.items():
            Path(place, file).write_bytes(content)
        output = Path(place, "library.so")
        as_c = [part for source in sources for part in ("-x", "c", f"{place}/{source}")]  # g++ forgets it after a file
        subprocess.run(
            [*command, *as_c, "-o", str(output), "-lm"],
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
            timeout=COMPILE_TIMEOUT,
        )
        return output.read_bytes()


def _first_error(output: bytes) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "it does not say why")[:300]


def _one_line(error: Exception) -> str:
    what = f"{error.what} {error.where}" if isinstance(error, AcornError) else str(error)
    return " ".join(what.split())[:600] or type(error).__name__
