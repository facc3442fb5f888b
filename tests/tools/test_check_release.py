from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from project_metadata import ROOT, tracked_files

import acorn

TOOL = ROOT / "tools" / "check_release.py"
VERSION = acorn.__version__


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_release", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(tmp_path: Path, tool: ModuleType) -> Path:
    """A copy of what the tool reads, as it was released: every placeholder filled in, and nothing unreleased."""
    files = {name for names in tool.placeholders(ROOT).values() for name in names}
    for name in files | {"CHANGELOG.md", "CITATION.cff", "RELEASING.md", "src/acorn/__init__.py"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for placeholder, names in tool.placeholders(ROOT).items():
        for name in names:
            replace(tmp_path / name, placeholder, "filled")
    changelog = tmp_path / "CHANGELOG.md"
    unreleased = re.compile(r"^## \[Unreleased\]$.*?(?=^## )", re.M | re.S)
    changelog.write_text(unreleased.sub("", changelog.read_text("utf-8")), "utf-8")
    return tmp_path


def test_this_version_has_its_changelog_and_citation(tool: ModuleType, ready: Path) -> None:
    assert tool.problems(ready, f"v{VERSION}") == []


def test_every_placeholder_is_listed_where_it_is(tool: ModuleType) -> None:
    """Both ways round: a maintainer who goes through the table has found them all."""
    listed = tool.placeholders(ROOT)
    assert listed
    tracked = tracked_files()
    if not tracked:
        pytest.skip("not a git checkout")
    told = {"RELEASING.md", "tests/tools/test_check_release.py"}
    for placeholder, names in listed.items():
        holders = {name for name in tracked if placeholder.encode() in (ROOT / name).read_bytes()}
        assert holders - told == set(names), placeholder


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("src/acorn/__init__.py", f'"{VERSION}"', '"7.8.9"', "The first heading of CHANGELOG.md is [7.8.9]"),
        (
            "CHANGELOG.md",
            f"## [{VERSION}]",
            "## [Unreleased]\n\n- More.\n\n## [0.0.0]",
            "The first heading of CHANGELOG.md",
        ),
        ("CHANGELOG.md", "\n- ", "\n* ", "lists nothing"),
        ("CITATION.cff", f"version: {VERSION}", "version: 9.9.9", "CITATION.cff has another version"),
        ("CITATION.cff", "date-released: 20", "date-released: 19", "CITATION.cff has another date"),
        ("CITATION.cff", "cff-version", "# REPOSITORY-OWNER\ncff-version", "REPOSITORY-OWNER has to be filled in"),
    ],
)
def test_what_is_missing_is_named(tool: ModuleType, ready: Path, file: str, old: str, new: str, told: str) -> None:
    replace(ready / file, old, new)
    assert any(told in problem for problem in tool.problems(ready, None))


def test_another_tag_is_refused(tool: ModuleType, ready: Path) -> None:
    [problem] = tool.problems(ready, "v9.9.9")
    assert "v9.9.9" in problem
    assert f"tag v{VERSION}" in problem


def test_command_lists_the_problems_and_fails() -> None:
    done = subprocess.run([sys.executable, str(TOOL), "--tag", "v9.9.9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Not ready for a release:\n- The tag is v9.9.9")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text, f"{file.name}: {old}"
    file.write_text(text.replace(old, new), "utf-8")
