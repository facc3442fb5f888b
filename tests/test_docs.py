"""What the pages say is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from acorn.config_files import load_config, preset_names
from acorn.model.sizing import size_of

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_config_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "config_reference.py"), "--check"]
    assert subprocess.run(command).returncode == 0, "run tools/config_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_table_of_presets_is_right() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]+\| ([\d,]+) \|", (ROOT / "README.md").read_text("utf-8"), re.M))
    missing = set(preset_names()) - set(rows)
    assert not missing, f"README.md, Presets: add a row of the form | `NAME` | ... | PARAMETERS | ... | for {missing}"
    assert set(rows) == set(preset_names())
    for name, stated in rows.items():
        config = load_config(name)
        model = config.model.model_copy(update={"vocab_size": config.tokenizer.vocab_size})
        assert f"{size_of(model).parameters:,}" == stated, name


def test_pretrain_commands_in_the_pages_resolve() -> None:
    """Every `acorn pretrain` and `acorn plan` line names a preset and settings that are valid."""
    seen = 0
    for page in PAGES:
        for line in re.findall(r"^ {4}(acorn (?:pretrain|plan) [^.\n].*)$", page.read_text("utf-8"), re.M):
            words = shlex.split(line, comments=True)[2:]
            words = words[: next((n for n, word in enumerate(words) if word.startswith("--")), len(words))]
            load_config(words[0], words[1:])
            seen += 1
    assert seen >= 4
