"""Encodes conversations for a model with acorn's own BPE, and marks the ids that are trained.

The markup consists of tokens that the vocabulary reserves: `<|endoftext|>`, then for each message the token of its
role, the content, and `<|end|>`. Content is encoded as text, so nothing that a user writes can begin or end a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from acorn.errors import InputError, UsageError
from acorn.tokenizer import bpe
from acorn.tokenizer.tokenizer import Tokenizer

ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
END_OF_TURN = "<|end|>"
ANSWERING = "assistant"
"""The role whose messages a model learns to generate."""

TEMPLATE = """\
{{- '<|endoftext|>' -}}
{%- for message in messages -%}
    {%- if message['role'] == 'assistant' -%}
        {{- '<|assistant|>' -}}
        {%- generation -%}
            {{- message['content'] + '<|end|>' -}}
        {%- endgeneration -%}
    {%- elif message['role'] == 'system' or message['role'] == 'user' -%}
        {{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
    {%- else -%}
        {{- raise_exception('The roles are system, user and assistant.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""
"""The content of chat_template.jinja: `ChatFormat` for transformers and servers."""

_GENERATION_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


class ChatMessage(Protocol):
    """One message of a conversation."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...

    @property
    def trained(self) -> bool:
        """Whether the model learns to generate it. Ignored for messages of other roles than the assistant."""
        ...


@dataclass(frozen=True)
class Encoded:
    """The token ids of an example, in order.

    Attributes:
        trained: for each id, whether the model learns to predict it from those before it.
    """

    ids: list[int]
    trained: list[bool]


class ChatFormat:
    """The format of conversations with acorn's own BPE.

    Args:
        tokenizer: one with the tokens that acorn reserves for chat.

    Attributes:
        template: Jinja source for transformers and servers, with `{% generation %}` around what is trained.
        gguf_template: the same for llama.cpp, which does not know that tag.
        end_ids: ids that end an answer: the end of a turn and the document separator.
        markup_ids: ids that only chats use; a pretrained model has not seen them.

    Raises:
        UsageError: the tokenizer does not have the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not is_ours(tokenizer):
            raise no_chat(tokenizer)
        self.tokenizer = tokenizer
        self.template = TEMPLATE
        self.gguf_template = without_generation(TEMPLATE)
        self._role_ids = {role: _id_of(tokenizer, name) for role, name in ROLE_TOKENS.items()}
        self._end_id = _id_of(tokenizer, END_OF_TURN)
        self.end_ids = (self._end_id, tokenizer.separator_id)
        self.markup_ids = (*self._role_ids.values(), self._end_id)

    def encode(self, messages: Sequence[ChatMessage], *, to_answer: bool = False) -> Encoded:
        """Encodes a conversation. The content of an answer and its end of turn are trained.

        Args:
            to_answer: the conversation is a prompt: the token that begins an answer is added, and nothing is trained.

        Raises:
            InputError: there is no message, a role is unknown, or a content is not valid Unicode.
        """
        check_not_empty(messages)
        ids, trained = [self.tokenizer.separator_id], [False]
        contents = self.tokenizer.encode_documents([message.content for message in messages])
        for number, (message, content) in enumerate(zip(messages, contents, strict=True), start=1):
            if message.role not in self._role_ids:
                raise InputError(
                    f"The role {message.role!r} is not known.",
                    where=f"message {number}",
                    fix=f"use one of {', '.join(ROLE_TOKENS)}",
                )
            turn = [*content, self._end_id]
            ids += [self._role_ids[message.role], *turn]
            is_trained = message.trained and message.role == ANSWERING and not to_answer
            trained += [False, *[is_trained] * len(turn)]
        if to_answer:
            ids.append(self._role_ids[ANSWERING])
            trained.append(False)
        return Encoded(ids, trained)


def is_ours(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the tokens that acorn reserves for chat, as acorn's own BPE does."""
    names = (*ROLE_TOKENS.values(), END_OF_TURN)
    is_reserved = all(tokenizer.id_of(name) in tokenizer.reserved_ids for name in names)
    return is_reserved and tokenizer.separator == bpe.SEPARATOR


def no_chat(tokenizer: Tokenizer) -> UsageError:
    """The error for a model that has no chat template and whose tokenizer is not acorn's own BPE."""
    if tokenizer.kind == "wordpiece":
        return UsageError(
            "A WordPiece tokenizer has no tokens for the turns of a conversation, so there is no chat with it.",
            where="tokenizer.kind",
            fix="use the task `complete` (prompt and completion), or pretrain with tokenizer.kind=bpe",
        )
    return UsageError(
        "The model has no chat template, and its tokenizer does not have the tokens that acorn uses for turns: "
        f"{', '.join((*ROLE_TOKENS.values(), END_OF_TURN))}.",
        where="chat_template.jinja",
        fix="use the task `complete` (prompt and completion), or put the model's chat_template.jinja into its folder",
    )


def check_not_empty(messages: Sequence[ChatMessage]) -> None:
    """Refuses a conversation without a message.

    Raises:
        InputError: there is no message.
    """
    if not messages:
        raise InputError(
            "The conversation has no message.", where="the conversation", fix="give it at least one message"
        )


def without_generation(template: str) -> str:
    """The template without the tag `{% generation %}`, which only transformers knows; it renders the same text.

    A condition that is always true replaces it, because removing the tag would change which whitespace around it is
    stripped.
    """
    return _GENERATION_TAG.sub(
        lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}",
        template,
    )


def _id_of(tokenizer: Tokenizer, name: str) -> int:
    token_id = tokenizer.id_of(name)
    assert token_id is not None, name  # is_ours
    return token_id
