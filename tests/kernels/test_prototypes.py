"""The ctypes declarations match the C files."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acorn.kernels import prototypes
from acorn.kernels.build import SOURCES
from acorn.kernels.prototypes import PROTOTYPES, STRUCTURES

CSRC = Path(prototypes.__file__).with_name("csrc")
FILES = sorted(path.name for path in CSRC.iterdir())

TYPES: dict[str, Any] = {
    "double": ctypes.c_double,
    "float": ctypes.c_float,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "void": None,
} | STRUCTURES


def code_of(name: str) -> str:
    """A file of csrc/ without comments."""
    return re.sub(r"//.*", "", (CSRC / name).read_text("utf-8"))


def type_of(text: str) -> Any:
    """The ctypes type of a declaration such as `const float *x`."""
    if "*" in text:
        return ctypes.c_void_p
    return TYPES[re.sub(r"\b(const|restrict)\b", "", text).split()[0]]


def functions_of(name: str) -> Iterator[tuple[str, tuple[Any, list[Any]]]]:
    """The exported functions of a C file."""
    for result, function, arguments in re.findall(r"^(\w+) (\w+)\(([^)]*)\)\s*\{", code_of(name), re.M):
        named = [] if arguments.strip() == "void" else arguments.split(",")
        yield function, (TYPES[result], [type_of(argument) for argument in named])


def structure_of(name: str) -> list[tuple[str, Any]]:
    """The fields of a C structure of that name."""
    (body,) = (
        found for file in FILES for found in re.findall(rf"typedef struct \{{([^}}]*)\}} {name};", code_of(file))
    )
    fields = []
    for declaration in filter(None, map(str.strip, body.split(";"))):
        first, *others = declaration.split(",")
        for field in (first, *others):
            is_pointer = "*" in field
            kind = ctypes.c_void_p if is_pointer else type_of(first.replace("*", ""))
            fields.append((re.findall(r"\w+", field)[-1], kind))
    return fields


@pytest.mark.parametrize("library", SOURCES)
def test_functions(library: str) -> None:
    found = dict(pair for source in SOURCES[library] for pair in functions_of(source))
    assert found == PROTOTYPES[library]


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str) -> None:
    told = [
        (field, ctypes.c_void_p if isinstance(kind, type(ctypes.POINTER(ctypes.c_int))) else kind)
        for field, kind, *_ in STRUCTURES[name]._fields_
    ]
    assert told == structure_of(name)


def test_names_are_unique_across_files() -> None:
    """So that any files can be included together, and a reader finds one definition."""
    defined: dict[str, set[str]] = {}
    for file in FILES:
        code = code_of(file)
        names = re.findall(r"^#define (\w+)", code, re.M)
        names += re.findall(r"^\} (\w+);", code, re.M)
        names += re.findall(r"^typedef [^{};]* (\w+) __attribute__", code, re.M)
        names += re.findall(
            r"^(?:static )?(?:inline )?(?:__attribute__\(\(\w+\)\) )?[\w ]+[ *](\w+)\([^;]*?\)\s*\{", code, re.M
        )
        for body in re.findall(r"^enum \w* ?\{([^}]*)\}", code, re.M):
            names += re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", body.strip())
        for name in names:
            defined.setdefault(name, set()).add(file)
    assert len(defined) > 80
    assert {name: files for name, files in defined.items() if len(files) > 1} == {}
