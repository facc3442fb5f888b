"""Where a run happened: versions, machine, and the state of the user's own folder."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from acorn.runtime.device import Runtime
from acorn.runtime.fp16_product import fp16_product_library
from acorn.train.native_attention import native_attention_library
from acorn.train.native_block import native_block_library
from acorn.train.native_loss import native_loss_library

PACKAGES = ("acorn-lm", "torch", "numpy", "tokenizers", "datasets", "safetensors", "pydantic")

EQUALITY = (
    *("acorn", "torch", "machine", "instructions", "device"),
    *("threads", "world_size", "precision", "compile", "native"),
)
"""What bit-for-bit equality of a resumed run rests on."""


def describe_environment(runtime: Runtime, command_line: str) -> dict[str, Any]:
    """The content of environment.json. `git_revision` is that of the folder the command was started in."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "acorn": _version("acorn-lm"),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {_processor()}".strip(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one name of a processor may stand for several
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if runtime.device == "cuda" else runtime.device,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "compile": runtime.compile,
        "native": _native(runtime),
        "choices": list(runtime.reasons),
        "world_size": 1,
        "strategy": "single",
        "git_revision": _git_revision(),
        "command_line": command_line,
    }


def _native(runtime: Runtime) -> str:
    """What of a training step is computed by acorn's own C files."""
    libraries = {"loss": native_loss_library(runtime.device), "blocks": native_block_library(runtime.device)}
    if runtime.fp16_products:
        libraries |= {"products": fp16_product_library(), "attention": native_attention_library()}
    return ", ".join(name for name, library in libraries.items() if not isinstance(library, str)) or "nothing"


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


def _git_revision() -> str | None:
    """The commit of the current folder, `+` appended if it has changes; None outside a checkout."""
    try:
        revision = _git("rev-parse", "HEAD")
        return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
