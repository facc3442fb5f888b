"""The report's section on a finetuned model: its figures beside the baselines', and by label.

Each function takes the figures of one side as `acorn evaluate --json` gives them. What they lack is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.counting import counted
from acorn.figure_names import BASELINES, SHARES, SMALLER_IS_BETTER, TASK_FIGURES, in_a_sentence
from acorn.report.confusion_svg import confusion_figure
from acorn.report.formats import figure
from acorn.report.markup import absent, escaped, mapping_in, table
from acorn.report.reliability_curve import reliability_figure

BY_LABEL = {"precision": "Precision", "recall": "Recall", "f1": "F1", "support": "Examples"}
OPEN_ROWS = 60
"""Labels up to which the table by label stands open."""
DECIDED_BY = (
    *("accuracy", "micro_f1", "mean_absolute_error", "token_accuracy", "entity_f1"),
    *("exact_match", "answer_loss"),
)
"""The figures by which a baseline may be better than the model."""


def task_section(figures: Mapping[str, Any]) -> str:
    """Figures, baselines, confusion matrix, table by label and reliability curve, as far as the task has them."""
    if not figures:
        return absent("The finetuned model has not been evaluated yet.")
    count = figures.get("examples")
    said = f'<p class="soft">Of {counted(count, "example")}.</p>' if isinstance(count, int) else ""
    parts = [said, figures_table(figures), _notes(figures), labels_section(figures)]
    return "".join(parts)


def labels_section(figures: Mapping[str, Any]) -> str:
    """The confusion matrix, the figures of each label or type of entity, and the reliability curve."""
    return _confusion(figures) + _by_label(figures) + _reliability(figures)


def figures_table(figures: Mapping[str, Any]) -> str:
    """The model's figures, a column for each baseline that was computed, and a sentence where one is better."""
    known = [name for name in TASK_FIGURES if name in figures]
    if not known:
        return absent("There are no figures of this task.")
    baselines = {name: mapping_in(mapping_in(figures, "baselines"), name) for name in BASELINES}
    shown = {name: its for name, its in baselines.items() if its}
    head = ["", "This model", *(escaped(BASELINES[name]) for name in shown)]
    rows = [
        [escaped(TASK_FIGURES[name]), *(shown_figure(name, its.get(name)) for its in (figures, *shown.values()))]
        for name in known
    ]
    return table(head, rows) + "".join(f'<p class="problem">{escaped(it)}</p>' for it in _better(figures, shown))


def _better(figures: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each baseline that is at least as good as the model by the task's first figure."""
    sentences = []
    for measure in DECIDED_BY:
        ours = figures.get(measure)
        for name, its in baselines.items():
            theirs = its.get(measure)
            if not isinstance(ours, int | float) or not isinstance(theirs, int | float):
                continue
            ahead = ours - theirs if measure in SMALLER_IS_BETTER else theirs - ours
            if ahead >= 0:
                how = "better than" if ahead > 0 else "as good as"
                sentences.append(f"{BASELINES[name]}: {how} this model by {in_a_sentence(TASK_FIGURES[measure])}.")
    return sentences


def shown_figure(name: str, value: Any) -> str:
    """A figure of a task as a person reads it."""
    if name in SHARES and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    return f"{value:.4f}" if isinstance(value, float) and abs(value) < 10 else escaped(figure(value))


def of_baselines(figures: Mapping[str, Any], name: str) -> str:
    """A figure of each baseline that has it: `Most frequent label 55.5 %`."""
    baselines = mapping_in(figures, "baselines")
    found = {label: mapping_in(baselines, key).get(name) for key, label in BASELINES.items()}
    return ", ".join(f"{label} {shown_figure(name, its)}" for label, its in found.items() if its is not None)


def _notes(figures: Mapping[str, Any]) -> str:
    """What is undefined or left out, and why; a sentence each."""
    found = [*_list_in(figures, "notes"), *_list_in(mapping_in(figures, "baselines"), "notes")]
    return "".join(f'<p class="soft">{escaped(str(note))}</p>' for note in found)


def _confusion(figures: Mapping[str, Any]) -> str:
    labels, confusion = _list_in(figures, "labels"), _list_in(figures, "confusion")
    if not confusion:
        return ""
    try:
        return confusion_figure([str(label) for label in labels], confusion)
    except (TypeError, ValueError):  # a file that was changed by hand
        return absent("The confusion matrix cannot be read.")


def _by_label(figures: Mapping[str, Any]) -> str:
    found, title = mapping_in(figures, "per_label"), "By label"
    if not found:
        found, title = mapping_in(figures, "per_entity"), "By type of entity"
    if not found:
        return ""
    # JSON files are sorted by name; labels have an order of their own.
    order = [name for name in _list_in(figures, "labels") if isinstance(name, str) and name in found]
    names = list(dict.fromkeys([*order, *found]))
    rows = []
    for name in names:
        its = mapping_in(found, name)
        cells = [
            escaped(figure(its.get(key))) if key == "support" else shown_figure(key, its.get(key)) for key in BY_LABEL
        ]
        rows.append([f'<span dir="auto">{escaped(name) or "(empty)"}</span>', *cells])
    whole = table(["", *BY_LABEL.values()], rows)
    if len(rows) > OPEN_ROWS:
        return f"<details><summary>{title}: {len(rows):,} rows</summary>{whole}</details>"
    return f"<h3>{title}</h3>{whole}"


def _reliability(figures: Mapping[str, Any]) -> str:
    error = figures.get("expected_calibration_error")
    try:
        return reliability_figure(_list_in(figures, "reliability"), error if isinstance(error, float) else None)
    except (KeyError, TypeError, ValueError):  # a file that was changed by hand
        return absent("The reliability curve cannot be read.")


def _list_in(outer: Mapping[str, Any], name: str) -> Sequence[Any]:
    """A list inside an object; empty where there is none, or something else."""
    found = outer.get(name)
    return found if isinstance(found, list | tuple) else []
