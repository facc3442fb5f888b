"""The error classes: messages, exit codes, and copying between processes."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from acorn import errors

CODES = {
    errors.UsageError: 2,
    errors.InputError: 3,
    errors.DamageError: 4,
    errors.DivergedError: 5,
    errors.ResourceError: 6,
}


@pytest.mark.parametrize("kind", CODES)
def test_a_message_says_what_happened_where_and_how_to_fix_it(kind: type[errors.AcornError]) -> None:
    error = kind("It broke.", where="file.txt, line 3", fix="write it anew")
    assert str(error) == "It broke.\n  where: file.txt, line 3\n  fix:   write it anew"
    assert error.exit_code == CODES[kind]
    assert str(kind("It broke.")) == "It broke."


def test_the_message_about_a_missing_package_names_the_extra() -> None:
    error = errors.MissingPackageError("wandb", "wandb", purpose="The tracker")
    assert error.exit_code == 7
    assert "pip install -c constraints.txt '.[wandb]'" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("a", where="b", fix="c"),
        errors.MissingPackageError("p", "e", purpose="x"),
        errors.StoppedError(15, "stopped"),
    ],
)
def test_errors_can_be_copied_between_processes(error: errors.AcornError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.exit_code == error.exit_code


NOT_IN_A_WHEEL = re.compile(
    r"\b(docs|tests|tools|benchmarks|examples)/|constraints\.txt|CONTRIBUTING|CHANGELOG|Makefile|pyproject\.toml"
    r"|\bmake (demo|test|install|lint|bench|lock)\b"
)


def shown(source: str, *, docstrings: bool) -> Iterator[str]:
    """The strings of a module that a user may see. The docstrings of commands are their help texts."""
    tree = ast.parse(source)
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    bare = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (docstrings or id(node) not in bare):
            yield node.value


INSTALLATION = errors.install_command("").removesuffix("]'")
"""It is run in a checkout, where this file is."""


def test_messages_and_help_name_only_installed_files() -> None:
    package = Path(errors.__file__).parent
    texts = [(path, path.read_text("utf-8")) for path in sorted(package.rglob("*.py"))]
    found = [
        f"{path.name}: {text}"
        for path, source in texts
        for text in shown(source, docstrings=path.parent.name == "cli")
        if NOT_IN_A_WHEEL.search(text) and text != INSTALLATION
    ]
    presets = sorted(package.joinpath("presets").glob("*.toml"))  # `acorn presets` prints their comments
    found += [path.name for path in presets if NOT_IN_A_WHEEL.search(path.read_text("utf-8"))]
    assert len(texts) > 100
    assert presets
    assert found == []


def test_a_message_repeats_a_wrong_value_even_if_it_is_hard_to_print() -> None:
    nested: list[object] = []
    nested.append(nested)
    assert errors.shown("a\nb") == "'a\\nb'"
    assert errors.shown(nested) == "[[...]]"
    assert len(errors.shown("x" * 10_000)) == errors.LONGEST_SHOWN + 3
    assert errors.shown(10**5000) == "<int too long to show>"  # Python itself converts at most 4,300 digits


def test_extras_are_installed_as_the_documentation_says() -> None:
    """No package is published yet under the project's name, so a message must not advise to download it."""
    tutorial = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text("utf-8")
    assert errors.install_command("gguf") in tutorial
    sources = [path.read_text("utf-8") for path in Path(errors.__file__).parent.rglob("*.py")]
    assert not [source for source in sources if "acorn-lm[" in source]


def test_a_stop_is_a_notice() -> None:
    """Nothing went wrong, so there is nothing to fix."""
    stopped = errors.StoppedError(2, "Stopped at step 5; a checkpoint was saved.", where="runs/a", fix="resume with: x")
    assert str(stopped).splitlines() == [stopped.what, "  in:   runs/a", "  next: resume with: x"]
    assert str(errors.StoppedError(2, "Stopped.")) == "Stopped."
