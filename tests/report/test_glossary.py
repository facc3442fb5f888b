"""The glossary of the report."""

from __future__ import annotations

import pytest

from acorn.report.glossary import REPORT_TERMS, TASK_TERMS, glossary, glossary_section


@pytest.mark.parametrize("terms", [REPORT_TERMS, TASK_TERMS])
def test_each_term_is_shown_with_its_meaning(terms: tuple[str, ...]) -> None:
    section = glossary_section(terms)
    assert list(terms) == sorted(terms, key=str.lower)
    for term in terms:
        assert f"<dt>{term}</dt><dd>" in section
    assert "<code>optimizer.lr</code>" not in section
    assert "`" not in section


def test_meanings_are_sentences() -> None:
    for term, meaning in glossary().items():
        assert meaning.endswith((".", ".)", "`.")), term
        assert meaning.count("`") % 2 == 0, term
