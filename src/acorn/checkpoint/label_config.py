"""The keys of a label head in the config.json of transformers' classifiers: kind of problem, and names of the labels.

The order of the labels is that of the head's outputs; `id2label` stores it. `label2id`, its inverse, is written for
other programs and not read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from acorn.counting import counted
from acorn.errors import InputError, shown
from acorn.model.label_head import HeadSpec, LabelKind

Reader = Literal["sequence", "token"]
"""Where a head is read: at the last token of a sequence, or at every token."""

PROBLEMS: dict[str, LabelKind] = {
    "single_label_classification": "class",
    "multi_label_classification": "labels",
    "regression": "value",
}
"""problem_type -> kind of a head that reads sequences. Taggers have no problem_type."""

TASKS: dict[LabelKind, str] = {"class": "classify", "labels": "classify", "value": "regress", "tag": "tag"}
"""Kind of a head -> the task that trains it."""

VALUE = "value"
"""Name of a regressor's output."""

MOST_LABELS = 1 << 16
"""A config.json with a larger number could make a reader use memory that its weights do not warrant."""

_ID = re.compile(r"0|[1-9][0-9]{0,9}")


def reader_of(head: HeadSpec) -> Reader:
    """Where the head is read."""
    return "token" if head.kind == "tag" else "sequence"


def label_faults(head: HeadSpec, labels: Sequence[str]) -> list[str]:
    """The reasons why these labels cannot be the names of the head's outputs; empty: they can."""
    faults = []
    if len(labels) != head.outputs:
        faults.append(f"{counted(len(labels), 'label')} cannot name {counted(head.outputs, 'output')}")
    if head.kind == "class" and head.outputs < 2:
        faults.append("there is only one label; one of several is chosen")
    if head.outputs > MOST_LABELS:
        faults.append(f"there are {head.outputs:,} labels, and at most {MOST_LABELS:,} are supported")
    again = [label for label, count in Counter(labels).items() if count > 1]
    faults += [f"the label {shown(label)} occurs more than once" for label in again[:8]]
    faults += [
        f"the label {shown(label)} has a lone surrogate, which is no character"
        for label in labels
        if any("\ud800" <= letter <= "\udfff" for letter in label)
    ][:8]
    return faults


def to_label_config(head: HeadSpec, labels: Sequence[str]) -> dict[str, Any]:
    """The keys of config.json that name the labels.

    Raises:
        InputError: the labels do not fit the head.
    """
    if faults := label_faults(head, labels):
        raise InputError(
            f"The labels do not fit the model: {'; '.join(faults)}.",
            where="the labels",
            fix="give one distinct name for each output",
        )
    names = {str(number): label for number, label in enumerate(labels)}
    values: dict[str, Any] = {
        "num_labels": head.outputs,
        "id2label": names,
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if head.kind == "tag":
        return {**values, "classifier_dropout": 0.0}  # 0.1 by default
    [problem] = [name for name, kind in PROBLEMS.items() if kind == head.kind]
    return {**values, "problem_type": problem}


def from_label_config(
    values: Mapping[str, Any], reader: Reader, faults: list[str]
) -> tuple[HeadSpec | None, tuple[str, ...]]:
    """The head in a classifier's config.json and the names of its outputs; None: it has faults, which are added to the
    list.

    Defaults are those of transformers: two labels, called LABEL_0 and LABEL_1; without a problem_type, a single output
    is a value, and several are classes.
    """
    labels = _labels(values, faults)
    if labels is None:
        return None, ()
    kind: LabelKind = "value" if len(labels) == 1 else "class"
    problem = values.get("problem_type")
    if reader == "token":
        kind = "tag"
    elif problem is not None:
        if problem not in list(PROBLEMS):
            faults.append(f"problem_type is {shown(problem)}; acorn supports {', '.join(PROBLEMS)}")
            return None, ()
        kind = PROBLEMS[problem]
    has_bias = reader == "token" and values.get("token_classification_bias", True) is not False
    head = HeadSpec(kind, len(labels), bias=has_bias)
    found = label_faults(head, labels)
    faults += found
    return (None, ()) if found else (head, labels)


def _labels(values: Mapping[str, Any], faults: list[str]) -> tuple[str, ...] | None:
    """The names of the outputs in order; None: id2label is wrong, which is added to the faults."""
    names, number = values.get("id2label"), values.get("num_labels")
    if names is None:
        number = 2 if number is None else number
        if type(number) is not int or not 1 <= number <= MOST_LABELS:
            faults.append(f"num_labels is {shown(number)}; acorn supports whole numbers from 1 to {MOST_LABELS:,}")
            return None
        return tuple(f"LABEL_{place}" for place in range(number))
    if not isinstance(names, dict) or not 1 <= len(names) <= MOST_LABELS:
        faults.append(f"id2label is {shown(names)}; it must give each of 1 to {MOST_LABELS:,} outputs a name")
        return None
    named: dict[int, str] = {}
    for key, name in names.items():
        if not _ID.fullmatch(key):
            faults.append(f"id2label has the key {shown(key)}, which is no number of an output")
            return None
        if type(name) not in (str, int):
            faults.append(f"id2label names the output {key} {shown(name)}, which is no text")
            return None
        named[int(key)] = str(name)
    if missing := [place for place in range(len(named)) if place not in named]:
        faults.append(f"id2label has {counted(len(named), 'label')}, but none for the output {missing[0]:,}")
        return None
    if type(number) is int and number != len(named):
        faults.append(f"num_labels is {shown(number)}, but id2label has {counted(len(named), 'label')}")
        return None
    return tuple(named[place] for place in range(len(named)))
