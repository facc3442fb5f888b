"""The words of the report's page."""

from __future__ import annotations

from acorn.report.glossary import REPORT_TERMS, glossary, glossary_section


def test_each_term_stands_with_its_meaning() -> None:
    section = glossary_section()
    for term in REPORT_TERMS:
        assert f"<dt>{term}</dt><dd>" in section
    assert "<code>optimizer.lr</code>" not in section
    assert "`" not in section


def test_meanings_are_sentences() -> None:
    for term, meaning in glossary().items():
        assert meaning.endswith((".", ".)", "`.")), term
        assert meaning.count("`") % 2 == 0, term
