"""Writes constraints.txt: one tested version of every package that acorn, its tests or any extra depends on.

pip resolves all extras together in a temporary environment, without installing anything. PyTorch stays at the version
in the file unless `--torch` changes it, because the results of a run depend on it.

Run it with the oldest Python that acorn supports: newer ones accept the same versions, but not always vice versa.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"

HEADER = """\
# The versions that acorn is tested with, for: pip install -c constraints.txt -e '.[dev]'
# They cover every extra as well. Written by `make lock` with Python {python}; do not edit.
"""

# On a machine with CUDA, PyTorch depends on these and pins them itself; elsewhere they are unavailable.
ACCELERATOR_PACKAGES = re.compile(r"(nvidia|cuda|triton|pytorch-triton)(-|$)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="VERSION", help="the PyTorch version to pin (default: the one pinned now)")
    torch = parser.parse_args().torch or pinned_torch()
    lines = [f"{name}=={version}" for name, version in sorted(resolve(torch).items())]
    python = ".".join(map(str, sys.version_info[:2]))
    CONSTRAINTS.write_text(HEADER.format(python=python) + "\n".join(lines) + "\n", "utf-8")
    print(f"{CONSTRAINTS.name}: {len(lines)} packages")


def pinned_torch() -> str:
    """The version in constraints.txt."""
    found = re.search(r"^torch==(\S+)$", CONSTRAINTS.read_text("utf-8"), re.MULTILINE)
    if not found:
        sys.exit(f"{CONSTRAINTS} does not pin torch. Fix: set a version with --torch")
    return found.group(1)


def resolve(torch: str) -> dict[str, str]:
    """Normalized name -> version of every package that acorn with all its extras depends on, with `torch` given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = ",".join(project["optional-dependencies"])
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        report = Path(folder) / "report.json"
        python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        wanted = [f"torch=={torch}", "-e", f"{ROOT}[{extras}]"]
        subprocess.run([str(python), "-m", "pip", "install", *options, *wanted], check=True)
        packages = [package["metadata"] for package in json.loads(report.read_bytes())["install"]]
    versions = {normalized(package["name"]): without_local_label(package["version"]) for package in packages}
    return {
        name: version
        for name, version in versions.items()
        if name != project["name"] and not ACCELERATOR_PACKAGES.match(name)
    }


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def without_local_label(version: str) -> str:
    """`2.13.0+cpu` -> `2.13.0`, which every build of that release matches."""
    return version.partition("+")[0]


if __name__ == "__main__":
    main()
