"""The docs are correct."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import run_acorn

from acorn.cli.app import app
from acorn.config_files import load_config, preset_names
from acorn.config_reference import find_settings
from acorn.files import read_sealed_json
from acorn.model.ops import Ops
from acorn.model.sizing import size_of
from acorn.report.glossary import REPORT_TERMS, glossary
from acorn.report.metrics_log import FIELDS, read_metrics, read_samples

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like in the docs: a small run in runs/mine, and rows to finetune it on."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "my.txt").write_text("".join(f"Sentence {n} is {n} and not {n + 1}.\n" for n in range(700)))
    (folder / "mails.csv").write_text("".join(["text,label\n", *(f"mail {n},{'ab'[n % 2]}\n" for n in range(20))]))
    chats = ({"instruction": f"Say {n}.", "output": f"It is {n}."} for n in range(20))
    (folder / "chats.jsonl").write_text("".join(f"{json.dumps(chat)}\n" for chat in chats))
    sizes = ["model.n_embd=32", "model.n_layer=1", "model.block_size=32", "tokenizer.vocab_size=300", "train.steps=4"]
    rest = ["train.eval_every=2", "train.precision=fp32", "train.threads=1", "train.sample_tokens=4"]
    done = run_acorn("pretrain", "small", "data.source=my.txt", *sizes, *rest, "--out", "runs/mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("tool", ["command_reference", "config_reference", "glossary", "serving_limits"])
def test_generated_pages_are_up_to_date(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--check"]
    assert subprocess.run(command).returncode == 0, f"run tools/{tool}.py"


def test_the_glossary_is_sorted_and_has_the_terms_of_the_report() -> None:
    terms = list(glossary())
    assert terms == sorted(terms, key=str.lower)
    assert set(REPORT_TERMS) <= set(terms)


def test_the_table_of_metrics_has_the_fields_of_the_log(folder: Path) -> None:
    page = (ROOT / "docs" / "files.md").read_text("utf-8").partition("## metrics.jsonl")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (both|train|valid) \|", page, re.M)
    assert [name for name, _ in rows] == [name for name in FIELDS if name not in ("prompt", "text")]
    records = read_metrics(folder / "runs/mine/metrics.jsonl")
    assert {record["split"] for record in records} == {"train", "valid"}
    for record in records:
        assert list(record) == [name for name, lines in rows if lines in ("both", record["split"])]
    [sample] = read_samples(folder / "runs/mine/samples.jsonl")
    assert set(sample) == {"step", *re.findall(r"`(\w+)`", page.partition("`samples.jsonl` has")[2])}


def test_the_code_that_recomputes_an_evaluation_gives_its_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    [code] = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "manifest" in block]
    assert len(code.partition("\n\n")[2].splitlines()) <= 10
    monkeypatch.chdir(folder)
    exec(code, {})
    printed = [float(word) for word in capsys.readouterr().out.split()]
    figures = read_sealed_json(folder / "runs/mine/evaluation.json")["valid"]
    assert printed == pytest.approx([figures["loss_per_token"], figures["bits_per_byte"]], rel=1e-6)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/generation.md", "docs/tutorial.md"])
def test_python_in_the_pages_works(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the blocks of a page in order, with a smaller model."""
    sizes = ["model.n_embd=32", "model.n_layer=1", "model.block_size=32", "tokenizer.vocab_size=300", "train.steps=2"]
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
    assert blocks
    monkeypatch.chdir(folder)
    mails = [f"the {'prize' if n % 2 else 'meeting'} {n},{'spam' if n % 2 else 'ham'}" for n in range(20)]
    Path("mails.csv").write_text("\n".join(["text,label", *mails]))
    names: dict[str, Any] = {}
    for block in blocks:
        code = block.replace('"train.steps=200"', f'"train.precision=fp32", "train.threads=1", *{sizes}')
        exec(code.replace("runs/from-python", f"runs/{Path(page).stem}"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_have_targets(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not heading or heading in headings(place), f"{target}#{heading}"


def headings(page: Path) -> set[str]:
    """The link targets of a page's headings, by GitHub's rule."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_table_of_presets_is_correct() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]+\| ([\d,]+) \|", (ROOT / "README.md").read_text("utf-8"), re.M))
    missing = set(preset_names()) - set(rows)
    assert not missing, f"README.md, Presets: add a row of the form | `NAME` | ... | PARAMETERS | ... | for {missing}"
    assert set(rows) == set(preset_names())
    for name, stated in rows.items():
        config = load_config(name)
        model = config.model.model_copy(update={"vocab_size": config.tokenizer.vocab_size})
        assert f"{size_of(model).parameters:,}" == stated, name


def commands_of(page: Path) -> list[list[str]]:
    """The arguments of each line that starts with four spaces and `acorn`, with continued lines joined."""
    lines = re.findall(r"^ {4}acorn ((?:.*\\\n)*.*)$", page.read_text("utf-8"), re.M)
    return [shlex.split(line.replace("\\\n", " "), comments=True) for line in lines]


def test_commands_in_the_pages_are_valid() -> None:
    """Commands and options exist, presets and settings are valid."""
    seen = 0
    for page in PAGES:
        for words in commands_of(page):
            if words != ["--version"]:
                check_command(words)
                seen += 1
    assert seen >= 40


def check_command(words: list[str]) -> None:
    """Raises the error for arguments that the program does not accept; runs nothing."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("acorn", [*words])
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
        if not hasattr(command, "commands"):
            command.make_context(command.name, [*words], parent=context)
    settings = [word for word in words if re.match(r"[a-z_.]+=", word)]
    for setting in settings:
        assert find_settings(setting.partition("=")[0])
    is_of_model = command.name == "plan" and "--data" in words  # its first argument is a run or model folder
    if command.name in ("pretrain", "plan") and not words[0].startswith("--") and not is_of_model:
        load_config(words[0], settings)


RUNNABLE = (
    r"generate runs/mine |evaluate runs/mine --checkpoint|verify runs/mine|"
    r"tokenizer |data inspect runs/mine |data (?!inspect)|config |presets"
)
"""Commands that are quick with the run and text of `folder`. They run in the order of the page."""


def test_commands_in_the_pages_work(folder: Path) -> None:
    ran = set()
    for page in PAGES:
        for words in commands_of(page):
            line = shlex.join(words)
            if "$" in line:  # part of a shell script
                continue
            if re.match(RUNNABLE, line) and line not in ran and not (folder / words[-1] / "manifest.json").exists():
                short = ["--max-new-tokens", "4"] if words[0] == "generate" else []
                done = run_acorn(*words, *short, cwd=folder)
                assert done.returncode == 0, f"{page.name}: acorn {line}: {done.stderr}"
                ran.add(line)
    assert len(ran) >= 8


def test_files_and_names_in_the_guides_exist() -> None:
    """Rows of the form | `file` | `name`, `Class.name` | ...: each name is defined in the file or appears in it."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w./]+\.\w+)` \| ([^|]+) \|", page, re.M)
    assert len(rows) >= 10
    for file, names in rows:
        text = (ROOT / file).read_text("utf-8")
        for name in re.findall(r"`([^`]+)`", names):
            assert name in (defined_in(text) if file.endswith(".py") else text), f"{file}: {name}"
    for path in re.findall(r"`((?:tests|src|tools|examples|docs)/[\w./]+)`", page):
        assert (ROOT / path).exists(), path


def defined_in(source: str) -> set[str]:
    """Functions, classes, methods and constants of a Python file."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def forward_passes() -> list[ast.FunctionDef]:
    """The functions of gpt.py that tensors go through."""
    tree = ast.parse((ROOT / "src/acorn/model/gpt.py").read_text("utf-8"))
    building = {"__init__", "init_weights", "_initial_value", "norm", "_stream"}
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name not in building]


def test_model_md_no_forward_pass_reads_a_switch() -> None:
    numbers = {"block_size", "rope_theta"}
    for function in forward_passes():
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("config"):
                assert node.attr in numbers, f"line {node.lineno}"


def test_model_md_lines_that_change_a_shape_name_the_new_shape() -> None:
    lines = (ROOT / "src/acorn/model/gpt.py").read_text("utf-8").splitlines()
    found = 0
    for function in forward_passes():
        for number in range(function.lineno - 1, function.end_lineno or 0):
            if re.search(r"\.(view|transpose|reshape|flatten|unsqueeze)\(|_proj\(|F\.linear\(", lines[number]):
                assert re.search(r"  # \(B", lines[number]), f"line {number + 1}: {lines[number]}"
                found += 1
    assert found >= 10


def test_model_md_names_every_file_of_the_model() -> None:
    """So the page cannot claim that the network is in one file if it is in several."""
    page = (ROOT / "docs" / "model.md").read_text("utf-8")
    files = {path.name for path in (ROOT / "src/acorn/model").glob("*.py")} - {"__init__.py"}
    assert {name for name in re.findall(r"`(\w+\.py)`", page)} >= files


def test_performance_md_is_short_and_its_figures_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert len(page.splitlines()) <= 150
    measured = set(re.findall(r"\d[\d,.]*\d", (ROOT / "docs" / "benchmarks.md").read_text("utf-8")))
    sections = re.split(r"^## ", page, flags=re.M)
    machines = [section for section in sections if "\n|" in section]
    assert len(machines) == 4
    for section in machines:
        [table] = re.findall(r"(?:^\|.*\n)+", section, re.M)
        figures = re.findall(r"(?<![\w-])\d[\d,.]*\d(?!\d* M\b|\w)", table)
        assert len(figures) >= 8
        assert set(figures) <= measured, set(figures) - measured


def test_model_md_names_existing_code() -> None:
    page = (ROOT / "docs" / "model.md").read_text("utf-8")
    names = defined_in((ROOT / "src/acorn/model/gpt.py").read_text("utf-8"))
    listed = re.findall(r"\*\*`([\w.]+)`\*\*", page)
    assert len(listed) >= 8
    assert set(listed) <= names
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| ([^|]+) \|$", page.partition("## The operations")[2], re.M)
    operations = [name for row, _ in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted([*operations, "matmul_dtype"]) == sorted(Ops.__dataclass_fields__)
    for _, on_a_cpu in rows:
        for file in re.findall(r"`(\w+\.c)`", on_a_cpu):
            assert (ROOT / "src/acorn/kernels/csrc" / file).exists(), file
    for file in re.findall(r"`((?:kernels|checkpoint|train)/[\w/]+(?:\.py|/))`", page):
        assert (ROOT / "src/acorn" / file).exists(), file
