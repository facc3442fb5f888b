"""The report's examples of a finetuned model: the mistakes it was surest of, and answers beside the expected ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.counting import counted
from acorn.report.markup import absent, escaped, noted, table

MOST_ROWS = 20
LONGEST_TEXT = 400
"""Characters of a text that a table shows."""


def mistakes_table(mistakes: Sequence[Mapping[str, Any]], limit: int = MOST_ROWS) -> str:
    """Wrong predictions, in the order given.

    Args:
        mistakes: each with `text`, `true`, `predicted` and `probability` (of the predicted label); with several labels
            `true` and `predicted` are lists, and `label` is the one that `probability` is of.
    """
    if not mistakes:
        return absent("No prediction was wrong.")
    rows = []
    for mistake in mistakes[:limit]:
        probability = mistake.get("probability")
        sure = f"{100 * probability:.1f} %" if isinstance(probability, int | float) else "—"
        of = f'of "{mistake["label"]}"' if "label" in mistake else ""
        cells = [_text(mistake.get("text")), _labels(mistake.get("true")), _labels(mistake.get("predicted"))]
        rows.append([*cells, noted(sure, of)])
    said = "The most confident ones first. A wrong label in the data looks the same as a mistake of the model."
    head = ["Text", "True label", "Predicted", "Probability"]
    return f'<p class="soft">{said}</p><div class="examples">{table(head, rows)}</div>'


def answers_table(answers: Sequence[Mapping[str, Any]], limit: int = MOST_ROWS) -> str:
    """Generated answers beside the expected ones: those that do not match first, then others, each in their order.

    Args:
        answers: each with `prompt`, `expected`, `text`, `ended`, `exact` and `normalized`.
    """
    if not answers:
        return absent("No answers were generated.")
    ordered = sorted(answers, key=lambda answer: (bool(answer.get("normalized")), bool(answer.get("exact"))))
    head = ["Prompt", "Expected", "Answer", "Match"]
    rows = [
        [*(_text(answer.get(name)) for name in ("prompt", "expected", "text")), _verdict(answer)]
        for answer in ordered[:limit]
    ]
    wrong = sum(not answer.get("normalized") for answer in answers)
    missed = f"{wrong:,} of {counted(len(answers), 'generated answer')} did not match"
    said = f"{missed}; they come first. {counted(len(rows), 'row')} in all."
    return f'<p class="soft">{said}</p><div class="examples">{table(head, rows)}</div>'


def _verdict(answer: Mapping[str, Any]) -> str:
    verdict = "exact" if answer.get("exact") else "normalized" if answer.get("normalized") else "no"
    return noted(verdict, "" if answer.get("ended") else "did not end by itself")


def _labels(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "<br>".join(map(_labels, value)) or "(none)"
    return f'<span dir="auto">{escaped(str(value)) or "(empty)"}</span>'


def _text(value: Any) -> str:
    """A text as it is, and of a long one the beginning."""
    text = str(value if value is not None else "")
    if not text:
        return "(empty)"
    shown = (
        f'<span class="text" dir="auto">{escaped(text[:LONGEST_TEXT])}{"…" if len(text) > LONGEST_TEXT else ""}</span>'
    )
    cut = f"the first {LONGEST_TEXT} of {len(text):,} characters, so that the table stays short"
    return noted(shown, cut if len(text) > LONGEST_TEXT else "")
