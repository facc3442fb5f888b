"""docs/faults.md and the tests of faults have the same numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"


def listed() -> list[int]:
    """The numbers of the page's rows, in order."""
    return [int(number) for number in re.findall(r"^\| *(\d+) *\|", PAGE.read_text("utf-8"), re.MULTILINE)]


def marked() -> Iterator[tuple[int, str, ast.FunctionDef]]:
    """Each `@pytest.mark.fault(N)` of the tests: N, the file, and the marked function."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    (number,) = mark.args
                    assert isinstance(number, ast.Constant), f"{path.name}: {function.name}"
                    assert isinstance(number.value, int), f"{path.name}: {function.name}"
                    yield number.value, path.name, function


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    numbers = listed()
    assert len(numbers) > 50
    assert numbers == sorted(set(numbers))
    assert {number for number, _, _ in marked()} == set(numbers)


def test_docstrings_of_marked_tests_name_their_row() -> None:
    for number, file, function in marked():
        assert function.name.startswith("test_"), f"{file}: {function.name}"
        assert (ast.get_docstring(function) or "").startswith(f"Fault {number}: "), f"{file}: {function.name}"


def test_rows_are_complete() -> None:
    """Four columns, none of them empty, and valid exit codes."""
    for line in PAGE.read_text("utf-8").splitlines():
        if re.match(r"\| *\d", line):
            _, number, *texts, codes = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[:-1]]
            assert len(list(filter(None, texts))) == 2, number
            assert set(re.findall(r"\d+", codes)) <= {"0", "2", "3", "4", "5", "6", "7", "130", "143"}, number
            assert re.search(r"\d", codes) or codes == "that of the signal", number
