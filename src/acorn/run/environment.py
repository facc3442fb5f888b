"""Describes where a run happened: versions, machine, and the git state of the user's folder."""

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
CODE_SUFFIXES = (".py", ".c", ".h")
"""Suffixes of the files with acorn's code."""

PACKAGES = ("acorn-lm", "torch", "numpy", "tokenizers", "datasets", "safetensors", "pydantic")

EQUALITY_FIELDS = (
    *("acorn", "acorn_source", "torch", "machine", "instructions", "device"),
    *("threads", "world_size", "precision", "compile", "native"),
)
"""Fields that must not change if a resumed run is to be bit-identical to an uninterrupted one."""


def describe_environment(runtime: Runtime, command_line: str) -> dict[str, Any]:
    """The content of environment.json.

    - `acorn`: its version.
    - `acorn_commit`: the commit of the checkout or repository that it was installed from, with `+` appended if the
      code was changed; None if unknown.
    - `acorn_source`: a digest of its code. Commits with equal code train identically; a changed checkout may not.
    - `git_revision`: the commit of the user's own checkout, in which the command was started; its top folder is
      `git_folder`.
    """
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "acorn": _version("acorn-lm"),
        "acorn_commit": _acorn_commit(),
        "acorn_source": _acorn_source(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {_processor()}".strip(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # may differ between CPUs of one name
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if runtime.device == "cuda" else runtime.device,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "compile": runtime.compile,
        "native": ", ".join(parts_in_c(runtime)) or "nothing",  # parts of a step in acorn's own C code
        "choices": [str(choice) for choice in runtime.choices],
        "world_size": 1,
        "strategy": "single",
        "git_revision": _git_revision(),
        "git_folder": _git_folder(),
        "command_line": command_line,
    }


def with_the_start(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """`now`, the environment of a resumed run, completed with what only its start knows.

    A resumed run takes every choice from its own config, so the reasons for the choices come from `before`.
    `first_command_line` is the command that started the run.

    Args:
        before: environment.json before the run was resumed; any field may be missing.
    """
    earlier = before.get("choices")
    lines = [line for line in earlier if isinstance(line, str)] if isinstance(earlier, list) else []
    reasons = {line.partition(":")[0]: line for line in lines}  # "precision bf16" -> the line with its reason
    choices = [reasons.get(line.partition(":")[0], line) for line in now["choices"]]
    first = before.get("first_command_line", before.get("command_line", now["command_line"]))
    return now | {"choices": choices, "first_command_line": first}


def changed_since(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The fields in EQUALITY_FIELDS that differ, one line each."""
    return [
        f"{key}: {stored[key]} then, {now[key]} now"
        for key in EQUALITY_FIELDS
        if key in stored and stored[key] != now[key]
    ]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The name of the processor, according to the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _acorn_source() -> str:
    """SHA-256 of acorn's own Python and C code, in a checkout or installed."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in CODE_SUFFIXES):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _acorn_commit() -> str | None:
    """The commit of acorn's code, with `+` appended if the code was changed; None if unknown."""
    try:
        _git(
            "ls-files", "--error-unmatch", "__init__.py", folder=PACKAGE
        )  # fails for an installation inside a checkout
        return _revision(PACKAGE, "--", ".")
    except (OSError, subprocess.SubprocessError):
        pass
    try:  # what pip records when it installs from a repository (PEP 610)
        origin = json.loads(metadata.distribution("acorn-lm").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    return origin.get("vcs_info", {}).get("commit_id")


def _git_revision() -> str | None:
    """The commit of the current folder, with `+` appended if it has changes; None outside a checkout."""
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
