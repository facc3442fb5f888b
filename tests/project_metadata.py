"""Facts about the project from pyproject.toml and git. For all tests."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def tracked_files() -> set[str]:
    """Every file that git tracks, relative to the top of the checkout; none outside a checkout."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    return {name for name in git.stdout.split("\0") if name and (ROOT / name).is_file()}


def extras() -> list[str]:
    return list(PROJECT["optional-dependencies"])


def requirements(extra: str) -> list[Requirement]:
    """Requirements in pyproject.toml: those of the core (`""`) or of an extra and the extras it includes."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            found += [inner for name in sorted(requirement.extras) for inner in requirements(name)]
        else:
            found.append(requirement)
    return found


def import_name(requirement: Requirement) -> str:
    names = {"llama-cpp-python": "llama_cpp", "scikit-learn": "sklearn"}
    return names.get(requirement.name, requirement.name.replace("-", "_"))


def applicable(lines: list[str] | None, *extras: str) -> list[Requirement]:
    """Requirements of an installed package that apply to this machine and these extras."""
    found = [Requirement(line) for line in lines or []]
    return [r for r in found if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in ("", *extras))]
