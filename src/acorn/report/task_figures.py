"""The main figures of finetuned runs, beside those of their baselines: for the head of a report and for comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from acorn.figure_names import SPLITS, TASK_FIGURES, in_a_sentence
from acorn.report.comparability import DIGEST_DIGITS
from acorn.report.markup import escaped, mapping_in, noted
from acorn.report.run_facts import RunFacts
from acorn.report.task_section import of_baselines, shown_figure

HELD_OUT_SIDES = ("test", "valid")

MAIN = (
    *("accuracy", "micro_f1", "macro_f1", "subset_accuracy", "mean_absolute_error", "rmse", "pearson"),
    *("token_accuracy", "entity_f1", "exact_match", "normalized_match", "ended_rate", "answer_loss"),
)
"""Figures that decide between models; a report's section on the evaluation has the others, too."""

TEXT_LOSS_UNIT = "nats per token"

LOSS_UNITS = {
    "classify": "nats per label",
    "tag": "nats per tag",
    "regress": "squared error, in units of the labels' size",
    "chat": "nats per answer token",
    "complete": "nats per answer token",
}
"""Task -> the unit of its loss."""


class MainFigure(NamedTuple):
    """A figure of a side as text, with those of the baselines."""

    label: str
    value: str
    note: str


def loss_unit(runs: Sequence[RunFacts]) -> str:
    """The unit of the losses of runs; empty where they have different ones."""
    units = {LOSS_UNITS.get(facts.task, TEXT_LOSS_UNIT) for facts in runs}
    return units.pop() if len(units) == 1 else ""


def main_figures(facts: RunFacts, most: int) -> list[MainFigure]:
    """The first figures of the test side, else of the validation side; without an evaluation those of the last
    validation."""
    for side in HELD_OUT_SIDES:
        its = mapping_in(facts.evaluation, side)
        names = [name for name in MAIN if its.get(name) is not None]
        if names:
            of = SPLITS[side]
            return [
                MainFigure(_named(of, name), shown_figure(name, its[name]), of_baselines(its, name))
                for name in names[:most]
            ]
    last = facts.curves.valid[-1] if facts.curves.valid else {}
    names = [name for name in MAIN if last.get(name) is not None]
    return [
        MainFigure(f"{_named('Validation', name)} so far", shown_figure(name, last[name]), "") for name in names[:most]
    ]


def comparison_rows(runs: Sequence[RunFacts]) -> list[list[str]]:
    """A row for each main figure that a run has, one column per run. Other examples are said beside the name."""
    rows = []
    for side in HELD_OUT_SIDES:
        for name in MAIN:
            found = [mapping_in(facts.evaluation, side) for facts in runs]
            if all(its.get(name) is None for its in found):
                continue
            scored = [facts for facts, its in zip(runs, found, strict=True) if its.get(name) is not None]
            differs = len({_digest(facts, side) for facts in scored}) > 1
            warning = "not comparable: different examples" if differs else ""
            cells = [
                "—" if its.get(name) is None else noted(shown_figure(name, its[name]), of_baselines(its, name))
                for its in found
            ]
            rows.append([noted(escaped(_named(SPLITS[side], name)), warning, "warning"), *cells])
    return rows


def example_rows(runs: Sequence[RunFacts]) -> list[list[str]]:
    """How many examples each side of finetuned runs has, with the beginning of their SHA-256."""
    rows = []
    for side in ("train", *HELD_OUT_SIDES):
        cells = [_examples(facts, side) for facts in runs]
        if any(cells):
            rows.append([f"{SPLITS[side]} examples", *(escaped(cell or "—") for cell in cells)])
    return rows


def _named(side: str, name: str) -> str:
    """A figure of a side: `Test accuracy`, `Test F1` or `Test macro F1`."""
    label = TASK_FIGURES[name]
    return f"{side} {label if label[1:2].isupper() else in_a_sentence(label)}"


def _examples(facts: RunFacts, side: str) -> str:
    count = facts.counted(side, "examples") if facts.task else None
    return "" if count is None else f"{count:,}, SHA-256 {_digest(facts, side)[:DIGEST_DIGITS]}"


def _digest(facts: RunFacts, side: str) -> str:
    """The digest of the examples of a side."""
    return str(mapping_in(mapping_in(facts.shards, "files"), f"{side}.jsonl").get("sha256", ""))
