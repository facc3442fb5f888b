"""GitHub's files: they are valid, and workflows have only the permissions they need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from project_metadata import PROJECT, ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    return parsed(request.param)


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_fit_their_schema(schema: str, files: list[Path]) -> None:
    """The schemas are part of check-jsonschema, so nothing is fetched."""
    assert files
    check("check_jsonschema", "--builtin-schema", schema, *map(str, files))


def test_zizmor_finds_no_weakness_in_the_workflows() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run([zizmor, "--offline", "--pedantic", str(GITHUB)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_have_no_permissions_by_default(workflow: dict[str, Any]) -> None:
    """Each job names its own. Only the job that publishes may write, and it runs no code of the repository."""
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        granted = {what for what, level in job["permissions"].items() if level == "write"}
        assert granted <= {"id-token", "pages"}
        if granted:
            assert name == "publish"
            assert "environment" in job
            assert not [step for step in job["steps"] if "run" in step or "checkout" in step["uses"]]


def test_actions_are_pinned_by_commit(workflow: dict[str, Any]) -> None:
    """A tag can be moved to other code after a review; a commit cannot."""
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert not [action for action in used if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", action)]
    assert all(step["with"]["persist-credentials"] is False for step in steps if "checkout" in step.get("uses", ""))


def test_each_action_has_the_same_version_everywhere() -> None:
    lines = [line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines()]
    pinned = {line.split("uses: ")[1] for line in lines if "uses: " in line and "@" in line}
    assert all(re.search(r" # v\d+\.\d+\.\d+$", line) for line in pinned)
    assert len({line.partition("@")[0] for line in pinned}) == len(pinned)


def test_jobs_have_time_limits_and_replace_older_ones(workflow: dict[str, Any]) -> None:
    assert "github.ref" in workflow["concurrency"]["group"]
    assert all(job.get("timeout-minutes", 0) > 0 for job in workflow["jobs"].values() if "steps" in job)


def test_the_supported_python_versions_are_tested() -> None:
    tested = parsed(GITHUB / "workflows" / "tests.yml")["jobs"]["posix"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    named = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert tested == [f"3.{minor}" for minor in named]
    assert [SpecifierSet(PROJECT["requires-python"]).contains(v) for v in ("3.10", tested[0])] == [False, True]


def test_files_that_workflows_run_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    text = "\n".join(path.read_text("utf-8") for path in WORKFLOWS)
    made = set(re.findall(r"run: make ([a-z-]+)", text))
    assert {"lint", "test", "dist", "docs"} <= made <= set(targets)
    files = set(re.findall(r"\b(?:tests|tools)/[\w./-]*", text))
    assert files
    assert not [name for name in files if not (ROOT / name).exists()]


def parsed(path: Path) -> dict[str, Any]:
    """A parsed YAML file. YAML 1.1 reads the key `on` as a boolean; no test needs it."""
    document = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def check(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
