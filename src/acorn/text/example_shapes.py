"""Makes the examples of a task from rows, and finds out which task the rows are for.

| task | columns |
|---|---|
| chat | `messages`; or `conversations`; or `instruction` and `output`; or `prompt` and `completion` of messages |
| complete | `prompt` and `completion` of text |
| classify | `text` and `label`: text or an integer, or a list of them |
| regress | `text` and `label`: a number, written with a decimal point |
| tag | `tokens` and `tags`: lists of equal length |

The fields of the `finetune` section name other columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from acorn.config import FinetuneConfig
from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.text.chat_shapes import SHAPES, list_in, shape_of, text_in, to_chat, unread_keys
from acorn.text.examples import Completion, Example, Labeled, Record, Refusal, RowFault, Tagged, Task
from acorn.text.label_values import LabelKind, as_label, as_value, label_kind
from acorn.text.reading import names_of

_Family = Literal["chat", "complete", "label", "tag"]
_WANTED = (
    "chat takes messages, conversations, or instruction and output; complete takes prompt and completion; classify and "
    "regress take text and label; tag takes tokens and tags. finetune.text_field, finetune.label_field, "
    "finetune.prompt_field and finetune.completion_field name other columns"
)
_TASKS: dict[_Family, Task] = {"chat": "chat", "complete": "complete", "label": "classify", "tag": "tag"}
_LABELS_ARE = {"word": "text", "integer": "integers", "list": "lists", "decimal": "numbers with a decimal point"}


def columns_of(task: Task, finetune: FinetuneConfig) -> tuple[str, str]:
    """The two columns that a task reads, the input first; for chat, those of the shape with prompt and completion."""
    if task in ("chat", "complete"):
        return finetune.prompt_field or "prompt", finetune.completion_field or "completion"
    if task == "tag":
        return finetune.text_field or "tokens", finetune.label_field or "tags"
    return finetune.text_field or "text", finetune.label_field or "label"


def to_example(record: Record, task: Task, finetune: FinetuneConfig) -> Example | Refusal:
    """The example of `task` that a row holds, or the reason why it holds none."""
    input_name, output_name = columns_of(task, finetune)
    try:
        if task == "chat":
            return to_chat(record, input_name, output_name)
        given = _input(record, task, finetune)
        if output_name not in record.values:
            raise RowFault(f"There is no column {output_name!r}; {_columns_seen(record)}.")
        value = record.values[output_name]
        if task == "complete":
            name = f"The answer (column {output_name!r})"
            return Completion(str(given), text_in(value, name), record.where)
        if task == "tag":
            return _tagged(record, tuple(given), output_name)
        label = (as_value if task == "regress" else as_label)(value, record.typed)
        return Labeled(str(given), label, record.where)
    except RowFault as fault:
        return Refusal(record.where, str(fault))


def to_input(record: Record, task: Task, finetune: FinetuneConfig) -> str | tuple[str, ...] | Refusal:
    """The input of a row, which may have no label: a text, a prompt, or the tokens of a sentence.

    A sentence may be a text instead, also in the column `text`: its tokens are then what is between white space.

    Args:
        task: any but chat.
    """
    try:
        if task == "tag" and (sentence := _sentence(record, finetune)):
            return tuple(sentence.split())
        return _input(record, task, finetune)
    except RowFault as fault:
        return Refusal(record.where, str(fault))


def task_of(records: Iterable[Record], finetune: FinetuneConfig) -> tuple[Task, str]:
    """The task that rows are for, found by their columns and the values of their labels; and the reason, as part of a
    sentence.

    Raises:
        UsageError: two tasks fit; the message names both.
        InputError: no task fits, or there is no row.
    """
    first: Record | None = None
    fits: dict[_Family, Record] = {}
    kinds: dict[LabelKind, Record] = {}
    for record in records:
        first = first or record
        for family in _families(record, finetune):
            fits.setdefault(family, record)
            if family == "label":
                value = record.values[columns_of("classify", finetune)[1]]
                kinds.setdefault(label_kind(value, record.typed), record)
    if first is None:
        raise InputError("There is no row.", where="--data", fix="give files that hold rows")
    if not fits:
        pairs = {"chosen", "rejected"} <= record.values.keys()
        raise InputError(
            f"These rows are for none of acorn's tasks: {_columns_seen(first)}"
            f"{'. They are pairs of preferences, which acorn does not train on' if pairs else ''}.",
            where=first.where,
            fix=_WANTED,
        )
    if len(fits) > 1:
        tasks: list[tuple[Task, Record]] = [(_TASKS[family], record) for family, record in fits.items()]
        raise _two_fit(
            [
                (task, f"there are {_columns_told(_columns_read(record, task, finetune))} ({record.where})")
                for task, record in tasks
            ]
        )
    (family,) = fits
    if family == "label":
        return _labels_task(kinds, finetune)
    return family, _columns_told(_columns_read(fits[family], family, finetune))


def unread_columns(record: Record, task: Task, finetune: FinetuneConfig) -> list[str]:
    """Columns, and keys of messages, that have a value and are not read."""
    read = _columns_read(record, task, finetune)
    columns = [name for name, value in record.values.items() if name not in read and value is not None]
    return columns + (list(dict.fromkeys(unread_keys(record))) if task == "chat" else [])


def _input(record: Record, task: Task, finetune: FinetuneConfig) -> str | tuple[str, ...]:
    name = columns_of(task, finetune)[0]
    if name not in record.values:
        raise RowFault(f"There is no column {name!r}; {_columns_seen(record)}.")
    value = record.values[name]
    if task != "tag":
        return text_in(value, f"The column {name!r}", may_be_empty=task == "complete")
    tokens = list_in(value, f"The column {name!r}", record.typed)
    if not tokens:
        raise RowFault(f"The column {name!r} holds no token.")
    return tuple(_word(token, number) for number, token in enumerate(tokens, start=1))


def _sentence(record: Record, finetune: FinetuneConfig) -> str:
    """The sentence of a row that has it as text; empty where it is a list of tokens, or where there is none."""
    name = columns_of("tag", finetune)[0]
    if name not in record.values and not finetune.text_field:
        name = "text"
    value = record.values.get(name)
    if not isinstance(value, str):
        return ""
    is_list = not record.typed and name != "text" and value.lstrip().startswith("[")  # a list in a .csv
    return "" if is_list else text_in(value, f"The column {name!r}")


def _word(token: object, number: int) -> str:
    """A token of a sentence. Tokens are joined by spaces, so white space inside one would make two of it."""
    word = text_in(token, f"Token {number}")
    if len(word.split()) > 1 or word != word.strip():
        raise RowFault(f"Token {number} has white space in it; a token is one word.")
    return word


def _tagged(record: Record, tokens: tuple[str, ...], name: str) -> Tagged:
    values = list_in(record.values[name], f"The column {name!r}", record.typed)
    if len(values) != len(tokens):
        raise RowFault(f"The row has {counted(len(tokens), 'token')}, but {counted(len(values), 'tag')}.")
    tags = [as_label(value, True, f"tag {number}") for number, value in enumerate(values, start=1)]
    for number, tag in enumerate(tags, start=1):
        if not isinstance(tag, str):
            raise RowFault(f"Tag {number} is a list, not text.")
    return Tagged(tokens, tuple(map(str, tags)), record.where)


def _families(record: Record, finetune: FinetuneConfig) -> list[_Family]:
    """What the columns of a row fit."""
    names = record.values.keys()
    found: list[_Family] = []
    if shape := shape_of(record):
        found += ["chat"] if shape != "instruction" or "output" in names else []
    if {*columns_of("complete", finetune)} <= names:
        values = [record.values[name] for name in columns_of("complete", finetune)]
        of_messages = any(isinstance(value, list | dict) for value in values)
        found.append("chat" if of_messages else "complete")
    pairs: dict[_Family, tuple[str, str]] = {
        "label": columns_of("classify", finetune),
        "tag": columns_of("tag", finetune),
    }
    fitting = [family for family, pair in pairs.items() if {*pair} <= names]
    if len(fitting) == 2 and pairs["label"] == pairs["tag"]:  # both columns are named, so that the values decide
        fitting = ["tag" if isinstance(record.values[pairs["tag"][0]], list) else "label"]
    return list(dict.fromkeys([*found, *fitting]))


def _columns_read(record: Record, task: Task, finetune: FinetuneConfig) -> Sequence[str]:
    if task == "chat" and (shape := shape_of(record)):
        return [name for name in SHAPES[shape] if record.values.get(name) is not None or name == shape]
    return columns_of(task, finetune)


def _labels_task(kinds: dict[LabelKind, Record], finetune: FinetuneConfig) -> tuple[Task, str]:
    """`regress` where every label is a number and one of them has a decimal point, else `classify`."""
    input_name, label_name = columns_of("classify", finetune)
    told = _columns_told((input_name, label_name))
    others = [kind for kind in ("word", "list") if kind in kinds]
    if "decimal" in kinds and others:
        raise _two_fit(
            [
                ("regress", f"the label of {kinds['decimal'].where} is a number with a decimal point"),
                ("classify", f"that of {kinds[others[0]].where} is {'a list' if others[0] == 'list' else 'text'}"),
            ]
        )
    if "decimal" in kinds:
        return "regress", f"{told}; labels are numbers with a decimal point (--task classify makes classes of them)"
    named = " and ".join(_LABELS_ARE[kind] for kind in kinds if kind != "missing")
    return "classify", f"{told}; labels are {named or 'missing'}"


def _two_fit(tasks: list[tuple[Task, str]]) -> UsageError:
    return UsageError(
        f"Several tasks fit these rows: {'; '.join(f'{task}, since {why}' for task, why in tasks)}.",
        where="--task auto",
        fix=f"choose one: {' or '.join(f'--task {task}' for task, _ in tasks)}",
    )


def _columns_told(names: Sequence[str]) -> str:
    shown = [repr(name[:40]) for name in names]
    return f"the column {shown[0]}" if len(shown) == 1 else f"the columns {', '.join(shown[:-1])} and {shown[-1]}"


def _columns_seen(record: Record) -> str:
    named = names_of(repr(name[:40]) for name in record.values)
    return f"the columns are {named}" if named else "there are no columns"
