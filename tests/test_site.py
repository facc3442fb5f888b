"""The site that Sphinx builds from docs/, and the notebook that is part of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from acorn.cli.app import app
from acorn.config import Config

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "notebooks" / "first-model.ipynb"


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds pages as `make docs` does, with the settings of docs/conf.py."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", DOCS, source, out]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built without a warning."""
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_the_site_and_in_its_navigation(site: Path) -> None:
    start = (site / "index.html").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert (site / name).is_file(), name
        if not re.match(r"decisions/0|index\.", name):  # single decisions are listed on the page of decisions
            assert f'href="{name}"' in start, name
    decisions = (site / "decisions/README.html").read_text("utf-8")
    for page in (DOCS / "decisions").glob("0*.md"):
        assert f'href="{page.stem}.html"' in decisions, page.name


def test_the_reference_has_every_command_setting_and_public_name(site: Path) -> None:
    commands = (site / "commands.html").read_text("utf-8")
    for command in app.registered_commands:
        assert f'id="acorn-{command.name}"' in commands, command.name
    config = (site / "config.html").read_text("utf-8")
    for section in Config.model_fields:
        assert section in config
    api = (site / "api.html").read_text("utf-8")
    for name in ("acorn.pretrain", "acorn.load", "acorn.LanguageModel.generate", "acorn.Tokenizer.train"):
        assert f'id="{name}"' in api, name
    assert "The loss curve" in (site / "notebooks/first-model.html").read_text("utf-8")


def test_pages_that_stand_for_a_file_at_the_top_have_its_text(site: Path) -> None:
    for page, file in ((name, f"{name.upper()}.md") for name in ("contributing", "changelog", "releasing")):
        [title, *_] = re.findall(r"^## (.+)$", (ROOT / file).read_text("utf-8"), re.M)
        assert re.escape(title.strip("[]")) in re.escape((site / f"{page}.html").read_text("utf-8"))


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        found = re.findall(r"<(?:script|img)[^>]* src=\"(https?:[^\"]+)|<link[^>]* href=\"(https?:[^\"]+)", text)
        assert not found, page.name


BROKEN = {
    "page": "[text](gone-page.md)",
    "heading": "[text](index.md#gone-heading)",
    "file": "[text](../src/gone-file.py)",
    "image": "![text](gone-image.png)",
    "name": "```{eval-rst}\n:py:func:`acorn.gone_name`\n```",
    "navigation": "```{toctree}\ngone-entry\n```",
}


def test_no_text_of_a_page_is_read_as_a_tag_or_a_dash() -> None:
    """`runs/<name>` outside code would be shown as `runs/`, and `--out` with one dash."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"^(```|~~~).*?^\1$|<!--.*?-->|^ {4}.*?$|`[^`]*`", "", page.read_text("utf-8"), flags=re.M | re.S)
        assert not re.findall(r"<[a-zA-Z/][^>]*>|--\w+", text), page.name


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """Each kind is reported; the same pages without them are built."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src/there.py").touch()
    whole = "# A page\n\n[a heading](#a-heading), [a file](../src/there.py)\n\n## A heading\n\n"
    for text, code in ((whole, 0), (whole + "\n\n".join(BROKEN.values()), 1)):
        (tmp_path / "docs/index.md").write_text(text)
        done = build(tmp_path / "docs", tmp_path / f"out-{code}")
        assert done.returncode == code, done.stderr
    for kind in BROKEN:
        assert re.search(f"WARNING.*gone.{kind.replace('navigation', 'entry')}", done.stderr), kind


def test_the_source_distribution_has_all_files_of_the_site() -> None:
    """Files outside docs/ that pages link to or stand for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    outside = {"Makefile", "constraints.txt"}
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text("utf-8")):
            place = (page.parent / target).resolve()
            if not place.is_relative_to(DOCS):
                outside.add(place.relative_to(ROOT).as_posix())
    always = {"README.md", "LICENSE"}  # which a build backend takes without being told
    for file in outside - always:
        assert any(f"/{file}" == entry or f"/{file}".startswith(f"{entry}/") for entry in included), file
    assert "/docs" in included


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """The notebook's cells."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert notebook["metadata"]["kernelspec"].keys() == {"display_name", "language", "name"}
    return notebook["cells"]


def test_the_notebook_is_valid_and_has_no_outputs(cells: list[dict[str, Any]]) -> None:
    """By the format's rules (nbformat 4.5): which keys a cell has, and identifiers that differ."""
    rest = {"cell_type", "id", "metadata", "source"}
    for cell in cells:
        is_code = cell["cell_type"] == "code"
        assert is_code or cell["cell_type"] == "markdown"
        assert set(cell) == (rest | {"outputs", "execution_count"} if is_code else rest)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if is_code:
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_notebook_runs(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its code but the installation, with a small text and a small model in place of its settings."""
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("".join(f"Sentence {n} is {n} and not {n + 1}.\n" for n in range(700)))
    matplotlib.use("agg")  # opens no window
    sizes = ["model.n_embd=32", "model.n_layer=1", "model.block_size=32", "tokenizer.vocab_size=300", "train.steps=4"]
    rest = ["train.eval_every=2", "train.precision=fp32", "train.threads=1", "train.sample_tokens=4"]
    names: dict[str, Any] = {}
    ran = []
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and "install" not in tags:
            exec("".join(cell["source"]), names)
            ran.append(cell["id"])
        if "parameters" in tags:
            names |= {"TEXT": "my.txt", "SETTINGS": [*sizes, *rest], "PROMPT": "Sentence"}
            monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # which would replace the settings
            monkeypatch.setattr("torch.cuda.get_device_name", lambda: "no GPU")
            names["SETTINGS"].append("train.device=cpu")
    assert ran == ["parameters", "device", "train", "curve", "generate", "export"]
    printed = capsys.readouterr().out
    assert "4 steps" in printed
    assert "Sentence" in printed
    assert (tmp_path / "first-model.zip").is_file()
    assert (tmp_path / "runs/first-model/final/model.safetensors").is_file()
