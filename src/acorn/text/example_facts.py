"""Checks of a whole set of examples: which labels it has, whether they can be learned, and what the user should
know."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from acorn.counting import counted
from acorn.errors import InputError
from acorn.text.example_sides import groups_of, input_digest
from acorn.text.examples import Chat, Example, Labeled, Tagged, Task
from acorn.text.label_values import shown
from acorn.text.reading import names_of

MANY_LABELS = 20
"""With more labels than this, and a different one for each example, the column does not hold labels."""

_WRONG_COLUMN = "name the column of the labels in finetune.label_field, or choose another task (--task)"


def labels_of(task: Task, examples: Sequence[Example], given: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels or tags, in the order of their ids; empty for a task without labels.

    Args:
        given: the labels, in order; empty: those of `examples`, integers by value and text by its code points.
    """
    if task not in ("classify", "tag"):
        return ()
    return tuple(given) or tuple(sorted(_label_counts(examples), key=_natural))


def has_list(example: Example) -> bool:
    """Whether an example has a list of labels."""
    return isinstance(example, Labeled) and isinstance(example.label, tuple)


def has_lists(examples: Sequence[Example]) -> bool:
    """Whether each example has a list of labels, or none has.

    Raises:
        InputError: some have one, and others do not.
    """
    listed = next((example for example in examples if has_list(example)), None)
    alone = next((example for example in examples if not has_list(example)), None)
    if listed and alone:
        raise InputError(
            "Some labels are lists, and others are not.",
            where=f"{listed.where} has a list; {alone.where} has none",
            fix="make all of them lists for several labels an example, or none",
        )
    return listed is not None


def check_labels(task: Task, examples: Sequence[Example], where: str) -> None:
    """Raises InputError if nothing can be learned from the labels of the training side."""
    labeled = [example for example in examples if isinstance(example, Labeled)]
    if task == "regress" and len({example.label for example in labeled}) < 2:
        who = "The only example has" if len(labeled) == 1 else f"All {len(labeled):,} examples have"
        what = f"{who} the label {labeled[0].label!r}: there is nothing to learn."
        raise InputError(what, where=where, fix=_WRONG_COLUMN)
    if task not in ("classify", "tag"):
        return
    counts = _label_counts(examples)
    several = any(has_list(example) for example in examples)
    if len(counts) < (1 if several else 2):
        noun = "tag" if task == "tag" else "label"
        who = "The only example has one" if len(examples) == 1 else "All examples have the same"
        what = f"{who} {noun}, {shown(next(iter(counts)))}." if counts else "No example has a label."
        raise InputError(what, where=where, fix="give examples of two labels at least")
    if task == "classify" and not several and len(counts) > MANY_LABELS and len(counts) == len(labeled):
        raise InputError(
            f"Each of the {len(labeled):,} examples has a label of its own, as {shown(labeled[0].label)}: there is no "
            "class that has two.",
            where=where,
            fix=_WRONG_COLUMN,
        )


def told_facts(task: Task, sides: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> Iterator[str]:
    """Sentences about the examples that the user should read before a model is trained on them."""
    training = sides["train"]
    if task == "chat":
        yield from _told_turns(training)
    yield from _told_conflicts(task, sides)
    if task in ("classify", "tag"):
        yield from _told_labels(task, sides, labels)


def _told_turns(examples: Sequence[Example]) -> Iterator[str]:
    """How many conversations have an unusual order of messages, which some chat templates of other models refuse."""
    found: Counter[str] = Counter()
    for example in examples:
        roles = [message.role for message in example.messages] if isinstance(example, Chat) else []
        turns = [role for role in roles if role != "system"]
        found["the assistant speaks first"] += turns[:1] == ["assistant"]
        found["one role speaks twice in a row"] += any(one == after for one, after in pairwise(turns))
        found["the last message has no answer, so that it is not learned from"] += turns[-1:] == ["user"]
        found["a system message is not the first"] += "system" in roles[1:]
    told = [f"in {n:,} {what}" for what, n in found.items() if n]
    if told:
        yield f"train: of {counted(len(examples), 'conversation')}, {'; '.join(told)}. They are kept as they are."


def _told_conflicts(task: Task, sides: Mapping[str, Sequence[Example]]) -> Iterator[str]:
    """Inputs that occur with different labels. Conversations and prompts may have several answers, so they are left
    out."""
    if task in ("chat", "complete"):
        return
    for side, examples in sides.items():
        places: dict[bytes, dict[object, str]] = defaultdict(dict)
        for example in examples:
            output = example.label if isinstance(example, Labeled) else getattr(example, "tags", None)
            places[input_digest(example)].setdefault(output, example.where)
        conflicts = [found for found in places.values() if len(found) > 1]
        if conflicts:
            first = " and ".join(list(conflicts[0].values())[:2])
            what = "tags" if task == "tag" else "labels"
            yield (
                f"warning: {side}: {counted(len(conflicts), 'input')} of {len(places):,} "
                f"{'has' if len(conflicts) == 1 else 'have'} conflicting {what} (the first: {first}). They are kept."
            )


def _told_labels(task: Task, sides: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> Iterator[str]:
    noun = "tag" if task == "tag" else "label"
    counts = {side: _label_counts(examples) for side, examples in sides.items()}
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[_plain(label)].append(label)
    for same in spellings.values():
        if len(same) > 1:
            named = names_of(f"{shown(label)} ({counts['train'][label]:,})" for label in same)
            yield f"warning: {noun}s that differ in spelling alone are different {noun}s: {named}."
    if missing := [label for label in labels if not counts["train"][label]]:
        yield f"warning: train has no example of the {noun}s {names_of(map(shown, missing))}."
    for side in sides:
        unseen = [label for label in labels if counts["train"][label] and not counts[side][label]]
        if unseen:
            yield f"{side} has no example of {counted(len(unseen), noun)}: {names_of(map(shown, unseen))}."
    examples = sum(isinstance(example, Labeled) for example in sides["train"])
    if task == "classify" and len(labels) > MANY_LABELS and 2 * len(labels) > examples:
        yield (
            f"warning: there are {len(labels):,} labels for {counted(examples, 'example')} of training. If the labels "
            "stand in another column, name it in finetune.label_field."
        )


def _label_counts(examples: Sequence[Example]) -> Counter[str]:
    """Label -> examples that have it; tag -> sentences that do."""
    return Counter(
        str(group) for example in examples if isinstance(example, Labeled | Tagged) for group in groups_of(example)
    )


def _natural(label: str) -> tuple[int, int, str]:
    """Sort key: integers by value, before text."""
    return (0, int(label), label) if re.fullmatch("-?[0-9]{1,18}", label) else (1, 0, label)


def _plain(label: str) -> str:
    """A label without case and width, and without the `.0` of a whole number."""
    plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return re.sub(r"(?<=\d)\.0+$", "", plain)
