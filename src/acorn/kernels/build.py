"""The C files of csrc/: compiled once for this machine, then loaded.

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
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from acorn.kernels.prototypes import declare

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


@functools.cache
def c_library(name: str) -> ctypes.CDLL | Unavailable:
    """The library `name` of SOURCES, compiled and loaded, or why not.

    One compilation serves a machine, compiler and source. It is kept in $XDG_CACHE_HOME/acorn or ~/.cache/acorn.
    """
    compiler = find_compiler()
    if compiler is None or os.name != "posix":
        return Unavailable("no C compiler was found (cc, gcc or clang)")
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [compiler, *FLAGS, "-mcpu=native" if arm else "-march=native"]
    files = {
        file.name: file.read_bytes()
        for file in sorted(resources.files("acorn.kernels").joinpath("csrc").iterdir(), key=lambda file: file.name)
        if file.name.endswith(".h") or file.name in SOURCES[name]
    }
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=COMPILE_TIMEOUT).stdout
        key = hashlib.sha256(repr((files, command, version, _instructions())).encode()).hexdigest()[:24]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acorn"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{name}-{key}.so"
        if not path.exists():
            _compile(command, files, SOURCES[name], path)
        return declare(ctypes.CDLL(str(path)), name)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        return Unavailable(f"{compiler} could not compile {', '.join(SOURCES[name])}: {said}")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Unavailable(f"compiling {', '.join(SOURCES[name])} failed: {error}")


def find_compiler() -> str | None:
    """The C compiler that $CC names, or the first that is there."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)


def _compile(command: list[str], files: dict[str, bytes], sources: tuple[str, ...], path: Path) -> None:
    """Compiles beside `path` and renames, so that no other process loads half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
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
        output.replace(path)


def _instructions() -> list[str]:
    """What this CPU can do: machines of several kinds may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
