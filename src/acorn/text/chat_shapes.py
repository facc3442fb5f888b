"""Makes a `Chat` from a row with a conversation.

Four shapes: `messages` (role and content), ShareGPT's `conversations` (from and value), Alpaca's `instruction`, `input`
and `output` (with `system` and `history`), and `prompt` and `completion`. The order of the roles is not checked.
A message of an assistant is trained, unless it says `"train": false` (or `"weight": 0`) or belongs to a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from acorn.text.examples import Chat, Message, Record, Role, RowFault, Unusable, kind_of

SHAPES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "system"),
    "conversations": ("conversations", "system"),
    "instruction": ("instruction", "input", "output", "system", "history"),
}
"""The column that shows a shape -> the columns that the shape reads."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "gpt": "assistant",
}
_MESSAGE_KEYS = ("role", "from", "content", "value", "train", "weight")
_TOOL_KEYS = ("tool_calls", "function_call")


def shape_of(record: Record) -> str:
    """The column that shows the shape of the record; empty: none of the first three shapes."""
    present = [name for name in SHAPES if name in record.values]
    return next((name for name in present if record.values[name] is not None), present[0] if present else "")


def to_chat(record: Record, prompt_field: str, completion_field: str) -> Chat:
    """The conversation in a row.

    Raises:
        RowFault: it has none that a model could be trained on.
    """
    values, shape = record.values, shape_of(record)
    if shape == "instruction":
        messages = _alpaca(record)
    elif shape:
        messages = [*_system(values), *_messages(values[shape], shape, record.typed)]
    else:
        messages = _prompted(record, prompt_field, completion_field)
    roles = [message.role for message in messages]
    if roles[:2] == ["system", "system"]:
        if messages[0] != messages[1]:
            raise RowFault("The column 'system' and the first message are different system messages.")
        del messages[0]
    if "assistant" not in roles:
        raise RowFault("No message is the assistant's, so there is no answer to learn.")
    if not any(message.trained for message in messages):
        raise RowFault('No message is trained: each of the assistant says "train": false.')
    return Chat(tuple(messages), record.where)


def unread_keys(record: Record) -> Iterator[str]:
    """Keys of messages that have a value and are not read."""
    column = shape_of(record)
    value = record.values.get(column)
    if column in ("messages", "conversations") and isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping):
                unread = (key for key, held in item.items() if held is not None and key not in _MESSAGE_KEYS)
                yield from (f"{column}[].{key}" for key in unread)


def text_in(value: object, name: str, *, may_be_empty: bool = False) -> str:
    """The text of a column or key.

    Raises:
        RowFault: its value is not a text.
    """
    if isinstance(value, Unusable):
        raise RowFault(f"{name} {value.reason}.")
    if not isinstance(value, str):
        raise RowFault(f"{name} is {kind_of(value)}, not text.")
    if not may_be_empty and (not value or value.isspace()):
        raise RowFault(f"{name} is empty.")
    return value


def list_in(value: object, name: str, typed: bool) -> list[Any]:
    """The list of a column; in a .csv or .tsv it is written as JSON.

    Raises:
        RowFault: its value is not a list.
    """
    if isinstance(value, Unusable):
        raise RowFault(f"{name} {value.reason}.")
    if isinstance(value, str) and not typed:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowFault(f"{name} is not a list in JSON: {error}.") from None
    if isinstance(value, Mapping) and value and all(isinstance(part, list) for part in value.values()):
        value = _transposed(value, name)
    if not isinstance(value, list | tuple):
        raise RowFault(f"{name} is {kind_of(value)}, not a list.")
    return list(value)


def _transposed(columns: Mapping[str, list[Any]], name: str) -> list[dict[str, Any]]:
    """A list of objects from an object of lists, which is how `datasets` may represent it."""
    if len({len(values) for values in columns.values()}) > 1:
        raise RowFault(f"{name} is an object of lists that differ in length.")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _messages(value: object, column: str, typed: bool, *, trained: bool = True) -> list[Message]:
    items = list_in(value, f"The column {column!r}", typed)
    if not items:
        raise RowFault(f"The column {column!r} holds no message.")
    return [_message(item, number, trained) for number, item in enumerate(items, start=1)]


def _message(item: object, number: int, trained: bool) -> Message:
    if not isinstance(item, Mapping):
        raise RowFault(f"Message {number} is {kind_of(item)}, not an object with a role and a content.")
    name = item.get("role") if item.get("role") is not None else item.get("from")
    if name is None:
        raise RowFault(f"Message {number} has no role.")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        shown = repr(name[:40]) if isinstance(name, str) else kind_of(name)
        raise RowFault(f"Message {number} has the role {shown}; acorn knows {', '.join(_ROLES)}.")
    if any(item.get(key) for key in _TOOL_KEYS):
        raise RowFault(f"Message {number} calls a tool, and acorn's models know none.")
    content = item.get("content") if item.get("content") is not None else item.get("value")
    text = text_in(content, f"The content of message {number} ({name})")
    return Message(role, text, _is_trained(item, number, role, trained))


def _is_trained(item: Mapping[str, Any], number: int, role: Role, otherwise: bool) -> bool:
    """The value of `train` or `weight`; without them `otherwise` for an assistant, and false for other roles."""
    given = [(key, item[key]) for key in ("train", "weight") if item.get(key) is not None]
    for key, value in given:
        if value not in (0, 1):
            shown = repr(value) if isinstance(value, int | float) else kind_of(value)
            raise RowFault(f"The {key} of message {number} is {shown}, not true or false.")
        if value and role != "assistant":
            raise RowFault(f"Message {number} says {key}, but only an assistant's message can be trained.")
    if len({bool(value) for _, value in given}) > 1:
        raise RowFault(f"The train and the weight of message {number} contradict each other.")
    return role == "assistant" and (bool(given[0][1]) if given else otherwise)


def _system(values: Mapping[str, Any]) -> list[Message]:
    value = values.get("system")
    if value is None or value == "":
        return []
    return [Message("system", text_in(value, "The column 'system'"), trained=False)]


def _alpaca(record: Record) -> list[Message]:
    values = record.values
    asked = [
        text_in(values[name], f"The column {name!r}", may_be_empty=True)
        for name in ("instruction", "input")
        if values.get(name) is not None
    ]
    question = "\n\n".join(part for part in asked if part and not part.isspace())
    if not question:
        raise RowFault("The column 'instruction' is empty.")
    if "output" not in values:
        raise RowFault("There is no column 'output'.")
    messages = _system(values)
    history = values.get("history")
    turns = list_in(history, "The column 'history'", record.typed) if history not in (None, "") else []
    for number, turn in enumerate(turns, start=1):
        name = f"Turn {number} of the column 'history'"
        pair = list_in(turn, name, typed=True)
        if len(pair) != 2:
            raise RowFault(f"{name} is not a pair of question and answer.")
        messages += _exchange(text_in(pair[0], name), text_in(pair[1], f"The answer of {name[0].lower()}{name[1:]}"))
    return messages + _exchange(question, text_in(values["output"], "The answer (column 'output')"))


def _prompted(record: Record, prompt_field: str, completion_field: str) -> list[Message]:
    """The messages of a prompt and a completion: each is a list of messages, or the text of one message."""
    values = record.values
    for name in (prompt_field, completion_field):
        if name not in values:
            raise RowFault(
                f"There is no conversation: no column 'messages', 'conversations' or 'instruction', and no {name!r}."
            )
    prompt, completion = values[prompt_field], values[completion_field]
    if isinstance(prompt, str) and isinstance(completion, str) and not _spells_list(record, prompt, completion):
        answer = text_in(completion, f"The answer (column {completion_field!r})")
        return _exchange(text_in(prompt, f"The column {prompt_field!r}"), answer)
    before = _messages(prompt, prompt_field, record.typed, trained=False)
    return before + _messages(completion, completion_field, record.typed)


def _spells_list(record: Record, *texts: str) -> bool:
    return not record.typed and all(text.lstrip().startswith("[") for text in texts)


def _exchange(question: str, answer: str) -> list[Message]:
    return [Message("user", question, trained=False), Message("assistant", answer, trained=True)]
