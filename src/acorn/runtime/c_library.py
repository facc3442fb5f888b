"""C files of the package: compiled once for this machine, then loaded.

It takes a POSIX system and a C compiler with OpenMP (GCC, or Clang with its libomp).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import torch

FLAGS = ("-O3", "-fopenmp", "-shared", "-fPIC", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")
"""Sums may be added up in any order, so that they fit vectors; infinities and NaN keep their meaning."""

TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""Type of a tensor -> number of vectors.h's `enum type`."""

COMPILE_TIMEOUT = 60  # seconds; it takes about two


@functools.cache
def c_library(package: str, name: str) -> ctypes.CDLL | str:
    """`name`.c of `package`, compiled and loaded, or why not. One compilation serves a machine, compiler and source.

    It may include the headers beside it and beside this file. It is kept in $XDG_CACHE_HOME/acorn or ~/.cache/acorn.
    """
    compiler = find_compiler()
    if compiler is None or os.name != "posix":
        return "no C compiler was found (cc, gcc or clang)"
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [compiler, *FLAGS, "-mcpu=native" if arm else "-march=native"]
    headers = {
        file.name: file.read_bytes()
        for place in ("acorn.runtime", package)
        for file in sorted(resources.files(place).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".h")
    }
    source = resources.files(package).joinpath(f"{name}.c").read_bytes()
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=COMPILE_TIMEOUT).stdout
        key = hashlib.sha256(repr((headers, source, command, version, _instructions())).encode()).hexdigest()[:24]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acorn"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{name}-{key}.so"
        if not path.exists():
            _compile(command, headers, name, source, path)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return f"{compiler} could not compile {name}.c: {error.stderr.decode(errors='replace').strip()}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"compiling {name}.c failed: {error}"


def find_compiler() -> str | None:
    """The C compiler that $CC names, or the first that is there."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)


def _compile(command: list[str], headers: dict[str, bytes], name: str, source: bytes, path: Path) -> None:
    """Compiles beside `path` and renames, so that no other process loads half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        # The source beside them: of one on its standard input, compilers look for headers in the working directory.
        for file, content in {**headers, f"{name}.c": source}.items():
            Path(place, file).write_bytes(content)
        output = Path(place, "library.so")
        subprocess.run(
            [*command, "-x", "c", f"{place}/{name}.c", "-o", str(output), "-lm"],
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
            timeout=COMPILE_TIMEOUT,
        )
        output.replace(path)


def _instructions() -> list[str]:
    """What this CPU can do: machines of several kinds may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
