"""How a loaded model has its conversations: its chat template, and what the template gets beside the messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from acorn.checkpoint.folder_tokenizer import CHAT_TEMPLATE, TOKENIZER_CONFIG
from acorn.checkpoint.load import LoadedModel
from acorn.files import read_json
from acorn.tokenizer.template_format import AnyChatFormat, chat_format_of, named_tokens
from acorn.tokenizer.tokenizer import Tokenizer


def chat_record(loaded: LoadedModel) -> dict[str, Any]:
    """The chat template of a model, the tokens that it may call by name, and the time that it gets as the current one.

    Empty where the model has no template. A run stores it, so that it encodes the same whenever it is resumed.
    """
    if not loaded.chat_template:
        return {}
    record: dict[str, Any] = {"template": loaded.chat_template}
    path = loaded.folder / TOKENIZER_CONFIG
    if path.is_file() and isinstance(settings := read_json(path), Mapping):  # a checkpoint has no such file
        record["special_tokens"] = named_tokens(settings)
    if "strftime_now" in loaded.chat_template:
        record["now"] = datetime.now().isoformat(timespec="seconds")
    return record


def format_of_record(tokenizer: Tokenizer, record: Mapping[str, Any], where: str = CHAT_TEMPLATE) -> AnyChatFormat:
    """The format of the conversations of a model that `chat_record` gave, or of one without a template.

    Raises:
        UsageError: the model has no template, and its tokenizer is not acorn's own BPE.
        InputError: the template cannot be used.
    """
    now = datetime.fromisoformat(record["now"]) if record.get("now") else None
    tokens = record.get("special_tokens")
    return chat_format_of(tokenizer, record.get("template", ""), special_tokens=tokens, now=now, where=where)


def chat_format(loaded: LoadedModel) -> AnyChatFormat | None:
    """The format of a model's conversations; None: it has no chat template.

    Raises:
        InputError: the template cannot be used.
    """
    record = chat_record(loaded)
    return format_of_record(loaded.tokenizer, record, str(loaded.folder)) if record else None
