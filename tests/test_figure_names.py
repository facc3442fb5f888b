"""Names of figures, and notes on altered text."""

from __future__ import annotations

import pytest

from acorn.figure_names import BASELINES, FIGURES, SHARES, SMALLER_IS_BETTER, TASK_FIGURES, altered_text, beside


@pytest.mark.parametrize(
    ("clean", "lossless", "told"),
    [
        ("none", True, ""),
        ("", True, ""),
        ("wikitext", True, "cleaned text"),
        ("none", False, "normalized text"),
        ("wikitext", False, "cleaned and normalized text"),
    ],
)
def test_changes_of_the_text_are_named(clean: str, lossless: bool, told: str) -> None:
    assert altered_text(clean, lossless) == told
    assert beside(told) == (f"{told}, not comparable with published figures" if told else "")


def test_figure_names_are_unique() -> None:
    for names in ({**FIGURES, **TASK_FIGURES}, BASELINES):
        assert len(set(names.values())) == len(names)
    assert SHARES.items() <= TASK_FIGURES.items()
    assert not SMALLER_IS_BETTER - set(TASK_FIGURES)
