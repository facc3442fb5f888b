"""The report's sections on a finetuned run: figures of each side, its surest mistakes or its answers, its examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acorn.errors import DamageError
from acorn.figure_names import SPLITS
from acorn.report.examples_section import answers_table, mistakes_table
from acorn.report.markup import absent, escaped, in_order, mapping_in, table, written
from acorn.report.task_section import task_section

COUNTS = {
    "examples": "Examples",
    "rows": "Rows read",
    "refused": "Rows that became no example",
    "repeats": "Dropped as exact repeats",
    "overlap": "Dropped as held-out inputs",
    "replaced": "Texts in which unreadable bytes were replaced",
}
"""Counts of a side in the manifest of a run's examples."""


AROUND = 8
"""Words that are shown on each side of one with a wrong tag."""


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """The objects of predictions.jsonl.

    Raises:
        DamageError: a line is no JSON object.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise DamageError(f"Line {number} of {path.name} is not a JSON object.", where=str(path))
        found.append(value)
    return found


def finetuned_section(evaluation: Mapping[str, Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]) -> str:
    """Figures of each side, and below them what the model said of single examples."""
    if not evaluation:
        return absent("The finetuned model has not been evaluated yet.")
    parts = [
        f"<h3>{escaped(SPLITS.get(side, side))}</h3>{task_section(figures)}"
        for side, figures in in_order(evaluation).items()
    ]
    return "".join(parts) + _single_examples(predictions)


def examples_table(manifest: Mapping[str, Any]) -> str:
    """Counts of each side of a run's examples, from their manifest."""
    sides = in_order(
        {name: mapping_in(mapping_in(manifest, "splits"), name) for name in mapping_in(manifest, "splits")}
    )
    if not sides:
        return absent("The manifest of the examples was not found, so their counts are left out.")
    rows = [
        [escaped(label), *(written(name, counts.get(name)) for counts in sides.values())]
        for name, label in COUNTS.items()
        if name in ("examples", "rows") or any(counts.get(name) for counts in sides.values())
    ]
    note = "Rows of an automatic split are counted with training." if manifest.get("automatic") else ""
    said = f'<p class="soft">{note}</p>' if note else ""
    return table(["", *(escaped(SPLITS.get(side, side)) for side in sides)], rows) + said


def _single_examples(predictions: Sequence[Mapping[str, Any]]) -> str:
    if not predictions:
        return ""
    if "expected" in predictions[0]:
        return f"<h3>Answers</h3>{answers_table(predictions)}"
    if "tokens" in predictions[0]:
        wrong_words = [mistake for one in predictions for mistake in _wrong_words(one)]
        return f"<h3>Mistakes</h3>{mistakes_table(sorted(wrong_words, key=lambda one: -one['probability']))}"
    if "probabilities" not in predictions[0] or isinstance(predictions[0].get("label"), list):
        return ""
    wrong = [_mistake(one) for one in predictions if one.get("predicted") != one.get("label")]
    return f"<h3>Mistakes</h3>{mistakes_table(sorted(wrong, key=lambda one: -one['probability']))}"


def _mistake(prediction: Mapping[str, Any]) -> dict[str, Any]:
    predicted = prediction.get("predicted")
    probability = mapping_in(prediction, "probabilities").get(str(predicted))
    sure = float(probability) if isinstance(probability, int | float) else 0.0
    return {
        "text": prediction.get("text"),
        "true": prediction.get("label"),
        "predicted": predicted,
        "probability": sure,
    }


def _wrong_words(prediction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The words of a sentence that got a wrong tag, each in brackets between its neighbors."""
    columns = [prediction.get(name) for name in ("tokens", "tags", "predicted", "probabilities")]
    if not all(isinstance(column, list) for column in columns):  # a file that was changed by hand
        return []
    words = [str(word) for word in columns[0] or []]
    return [
        {
            "text": " ".join([*words[max(0, at - AROUND) : at], f"[{word}]", *words[at + 1 : at + 1 + AROUND]]),
            "true": true,
            "predicted": guess,
            "probability": float(sure) if isinstance(sure, int | float) else 0.0,
        }
        for at, (word, true, guess, sure) in enumerate(zip(*columns, strict=False))
        if guess != true
    ]
