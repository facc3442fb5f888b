"""Where a run happened: versions, machine, and the state of the user's own folder."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from acorn.files import sha256_of
from acorn.kernels.cpu import parts_in_c
from acorn.runtime.device import Runtime

PACKAGE = Path(__file__).resolve().parents[1]
CODE = (".py", ".c", ".h")
"""Endings of the files that acorn computes with."""

PACKAGES = ("acorn-lm", "torch", "numpy", "tokenizers", "datasets", "safetensors", "pydantic")

EQUALITY = (
    *("acorn", "acorn_source", "torch", "machine", "instructions", "device"),
    *("threads", "world_size", "precision", "compile", "native"),
)
"""What bit-for-bit equality of a resumed run rests on."""


def describe_environment(runtime: Runtime, command_line: str) -> dict[str, Any]:
    """The content of environment.json.

    `acorn` is its version, `acorn_commit` the commit of the checkout or repository that it was installed from (`+`
    appended if it has changes; None where that is not known), `acorn_source` a digest of its code: two commits with
    equal code train alike, and two states of a changed checkout need not. `git_revision` is that of the user's own
    checkout, `git_folder`, which the command was started in.
    """
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "acorn": _version("acorn-lm"),
        "acorn_commit": _acorn_commit(),
        "acorn_source": _acorn_source(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {_processor()}".strip(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one name of a processor may stand for several
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if runtime.device == "cuda" else runtime.device,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "compile": runtime.compile,
        "native": ", ".join(parts_in_c(runtime)) or "nothing",  # what of a step is computed by acorn's own C files
        "choices": [str(choice) for choice in runtime.choices],
        "world_size": 1,
        "strategy": "single",
        "git_revision": _git_revision(),
        "git_folder": _git_folder(),
        "command_line": command_line,
    }


def with_the_start(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """`now`, of a run that is resumed, with what only its start knows.

    A resumed run is told every choice by its own config. Why a value was first chosen stays as it was said then, and
    `first_command_line` is the one that started the run.

    Args:
        before: environment.json as the run left it; anything may be missing.
    """
    earlier = before.get("choices")
    lines = [line for line in earlier if isinstance(line, str)] if isinstance(earlier, list) else []
    reasons = {line.partition(":")[0]: line for line in lines}  # "precision bf16" -> the line with its reason
    choices = [reasons.get(line.partition(":")[0], line) for line in now["choices"]]
    first = before.get("first_command_line", before.get("command_line", now["command_line"]))
    return now | {"choices": choices, "first_command_line": first}


def changed_since(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs of the things that bit-for-bit equality rests on, one line each."""
    return [
        f"{key}: {stored[key]} then, {now[key]} now" for key in EQUALITY if key in stored and stored[key] != now[key]
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _acorn_source() -> str:
    """SHA-256 over acorn's own code, Python and C, whether it is in a checkout or installed."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in CODE):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _acorn_commit() -> str | None:
    """The commit that acorn's code is of, `+` appended if that has changes; None where it is not known."""
    try:
        _git("ls-files", "--error-unmatch", "__init__.py", folder=PACKAGE)  # a checkout may just hold the installed one
        return _revision(PACKAGE, "--", ".")
    except (OSError, subprocess.SubprocessError):
        pass
    try:  # what pip notes of an installation from a repository (PEP 610)
        origin = json.loads(metadata.distribution("acorn-lm").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")


def _git_revision() -> str | None:
    """The commit of the current folder, `+` appended if it has changes; None outside a checkout."""
    try:
        return _revision(Path.cwd(), "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None


def _git_folder() -> str | None:
    """The top folder of the checkout that the current folder is in; None outside one."""
    try:
        return _git("rev-parse", "--show-toplevel", folder=Path.cwd())
    except (OSError, subprocess.SubprocessError):
        return None


def _revision(folder: Path, *status: str) -> str:
    return _git("rev-parse", "HEAD", folder=folder) + (
        "+" if _git("status", "--porcelain", *status, folder=folder) else ""
    )


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
