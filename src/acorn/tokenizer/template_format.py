"""Encodes conversations for a model with its own chat template, and marks the ids that are trained."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from acorn.counting import counted
from acorn.errors import InputError
from acorn.tokenizer.chat_format import (
    ANSWERING,
    TEMPLATE,
    ChatFormat,
    ChatMessage,
    Encoded,
    check_not_empty,
    is_ours,
    no_chat,
    without_generation,
)
from acorn.tokenizer.continuation import encode_continuation
from acorn.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from acorn.tokenizer.jinja_template import Rendered, Span

_PRIVATE_USE = range(0x100000, 0x10FFFE)
_SPLIT = (
    "train on the last answer alone (mark the others as not trained), or give each answer a conversation of its own"
)


@dataclass(frozen=True)
class _Probe:
    """A message of a made-up conversation, which shows how the template ends an answer."""

    role: str
    content: str
    trained: bool = True


class TemplateFormat:
    """The format of conversations of a model with a chat template.

    The ids are those of transformers' apply_chat_template, unless a message contains the name of a control token: here
    that is ordinary text, so nothing that a user writes can end a turn. The text inside `{% generation %}` is trained.
    Without that tag, an answer is what the conversation adds to the same conversation without the answer, up to the
    token that ends it. That token is always trained, even if the tag does not include it: a model must learn to end.

    Args:
        tokenizer: the model's own, unchanged.
        template: Jinja source.
        special_tokens: the tokens that the template can use by name; see `named_tokens`. None: those that acorn
            exports.
        now: the current time for the template; None: the time of this call. A run gives the time at which it began, so
            that it encodes the same after a resume.
        where: the file that the template is from, for messages.

    Attributes:
        template: as given.
        gguf_template: the same for llama.cpp, which does not know `{% generation %}`.
        end_ids: ids that end an answer: the token with which the template ends one, and the document separator.
        markup_ids: ids of control tokens that the template writes around a conversation.

    Raises:
        InputError: the template cannot be used, or ends answers with ordinary text instead of a control token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        now: datetime | None = None,
        where: str = "chat_template.jinja",
    ) -> None:
        from acorn.tokenizer.jinja_template import JinjaTemplate

        self.tokenizer = tokenizer
        self.template = template
        self.gguf_template = without_generation(template)
        self._where = where
        if special_tokens is None:
            special_tokens = named_tokens(tokenizer.transformers_config(0))
        self._jinja = JinjaTemplate(template, special_tokens, now or datetime.now(), where)
        self._controls = re.compile("|".join(map(re.escape, sorted(tokenizer.control_tokens, key=len, reverse=True))))
        probe = self.encode([_Probe("user", "a"), _Probe(ANSWERING, "b")])
        ends = [token for token, is_trained in zip(probe.ids, probe.trained, strict=True) if is_trained]
        ends = [token for token in ends if token in tokenizer.control_ids][-1:]
        if not ends:
            raise self._endless(1)
        self.end_ids = tuple(dict.fromkeys([*ends, tokenizer.separator_id]))
        self.markup_ids = tuple(sorted(tokenizer.control_ids.intersection(probe.ids)))

    def encode(self, messages: Sequence[ChatMessage], *, to_answer: bool = False) -> Encoded:
        """Encodes a conversation.

        Args:
            to_answer: the conversation is a prompt: the beginning of an answer is added, and nothing is trained.

        Raises:
            InputError: there is no message, the template refuses the conversation, or it cannot be told which part of
                it is a trained answer.
        """
        check_not_empty(messages)
        turns, mark = self._marked(messages)
        rendered = self._jinja.render(turns, to_answer=to_answer)
        ids, places = self._encode_text(rendered.text, mark)
        trained = [False] * len(ids)
        if not to_answer:
            for first, end in self._answers(messages, turns, rendered, ids, places):
                trained[first:end] = [True] * (end - first)
        return Encoded(ids, trained)

    def _marked(self, messages: Sequence[ChatMessage]) -> tuple[list[dict[str, str]], str]:
        """Role and content of each message, and the character that encloses text which must not become a control token.

        The character is empty if no content could become one.

        Raises:
            InputError: a role could become one.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        for number, turn in enumerate(turns, start=1):
            if self._controls.search(turn["role"]):
                raise InputError(
                    f"The role {turn['role']!r} contains the name of a control token.",
                    where=f"message {number}",
                    fix="use a role that the chat template knows, such as system, user or assistant",
                )
        parts = [self._control_part(turn["content"]) for turn in turns]
        if not any(parts):
            return turns, ""
        used = {self.template, *(turn["content"] for turn in turns)}
        mark = next(chr(code) for code in _PRIVATE_USE if not any(chr(code) in text for text in used))
        for turn, part in zip(turns, parts, strict=True):
            if part:
                content, (first, end) = turn["content"], part
                turn["content"] = f"{content[:first]}{mark}{content[first:end]}{mark}{content[end:]}"
        return turns, mark

    def _control_part(self, content: str) -> Span | None:
        """The smallest part of a content that contains all names of control tokens in it."""
        found = list(self._controls.finditer(content))
        if found:
            return found[0].start(), found[-1].end()
        if self._controls.search(
            self.tokenizer.normalize(content)
        ):  # a normalizer may produce the name from other characters
            begin = len(content) - len(content.lstrip())
            return begin, len(content.rstrip())
        return None

    def _encode_text(self, text: str, mark: str) -> tuple[list[int], list[Span]]:
        """The ids of a rendered conversation, with control tokens matched outside marks only; and the characters of
        each id."""
        ids: list[int] = []
        places: list[Span] = []
        pieces = text.split(mark) if mark else [text]
        if len(pieces) % 2 == 0:
            raise InputError(
                "The chat template splits a message that contains the name of a control token.",
                where=self._where,
                fix="remove these names from the messages: " + ", ".join(self.tokenizer.control_tokens),
            )
        begin = 0
        for number, piece in enumerate(pieces):
            is_template = number % 2 == 0
            if number == 0:
                part, spans = self.tokenizer.encode_part(piece, controls=True)
            else:
                part, spans = encode_continuation(self.tokenizer, piece, controls=is_template)
            ids += part
            places += [(first + begin, end + begin) for first, end in spans]
            begin += len(piece) + len(mark)
        return ids, places

    def _answers(
        self,
        messages: Sequence[ChatMessage],
        turns: Sequence[Mapping[str, str]],
        rendered: Rendered,
        ids: Sequence[int],
        places: Sequence[Span],
    ) -> list[Span]:
        """The ranges [first, end) of tokens that are trained."""
        starts, ends = [place[0] for place in places], [place[1] for place in places]
        numbers = [number for number, message in enumerate(messages) if message.role == ANSWERING]
        wanted = [number for number in numbers if messages[number].trained]
        found: list[Span] = []
        if not wanted:
            return found
        if rendered.answers is not None and len(rendered.answers) != len(numbers):
            if wanted != numbers:
                marked = counted(len(rendered.answers), "part")
                raise InputError(
                    f"The chat template marks {marked} as written by the model, but the conversation has "
                    f"{counted(len(numbers), 'answer')}, so acorn cannot leave out those that are not trained.",
                    where=self._where,
                    fix="train on all answers of the conversation",
                )
            return [(bisect_right(ends, begin), bisect_left(starts, end)) for begin, end in rendered.answers]
        for number in wanted:
            if rendered.answers is not None:
                begin, end = rendered.answers[numbers.index(number)]
                # As in transformers: every token that overlaps the span.
                first, last = bisect_right(ends, begin), bisect_left(starts, end)
                ended = self._after_end(ids, places, first, last, rendered.text)
                if ended is None and last < len(ids) and ids[last] in self.tokenizer.control_ids:
                    ended = last = last + 1
            else:
                begin, end = self._beyond_the_prefix(turns, number, rendered.text)
                # A token that overlaps the header cannot be generated: the prompt already contains that part of it.
                first, last = bisect_left(starts, begin), bisect_left(starts, end)
                ended = self._after_end(ids, places, first, last, rendered.text)
                last = ended or last  # generation stops at the end token: whitespace after it is never generated
            if ended is None:
                raise self._endless(number)
            found.append((first, last))
        return found

    def _endless(self, number: int) -> InputError:
        return InputError(
            "The chat template ends an answer with no token of its own, so that a model could not learn to end one.",
            where=self._at(number),
            fix="use the task `complete`, or a model whose template ends each answer with a special token",
        )

    def _at(self, number: int) -> str:
        return f"{self._where}, message {number + 1} ({ANSWERING})"

    def _beyond_the_prefix(self, turns: Sequence[Mapping[str, str]], number: int, whole: str) -> Span:
        """The characters of the answer `turns[number]`, from its beginning to the beginning of the next turn.

        Raises:
            InputError: the conversation up to either place is not rendered as the beginning of the whole conversation.
        """
        try:
            before = self._jinja.render(turns[:number], to_answer=True).text
            after = self._jinja.render(turns[: number + 1]).text if number + 1 < len(turns) else whole
        except InputError as error:
            raise InputError(error.what, where=self._at(number), fix=_SPLIT) from None
        if not (whole.startswith(before) and whole.startswith(after) and len(before) < len(after)):
            raise InputError(
                "The chat template has no {% generation %}, and it renders the conversation up to this answer "
                "differently when more messages follow, so acorn cannot determine what the model should write.",
                where=self._at(number),
                fix=_SPLIT,
            )
        return len(before), len(after)

    def _after_end(self, ids: Sequence[int], places: Sequence[Span], first: int, last: int, text: str) -> int | None:
        """The position after the token that ends an answer, among tokens [first, last); None: no token ends it."""
        for number in range(last - 1, first - 1, -1):
            if ids[number] in self.tokenizer.control_ids:
                return number + 1
            if text[slice(*places[number])].strip():
                break
        return None


AnyChatFormat = ChatFormat | TemplateFormat


def chat_format_of(
    tokenizer: Tokenizer,
    template: str = "",
    *,
    special_tokens: Mapping[str, str] | None = None,
    now: datetime | None = None,
    where: str = "chat_template.jinja",
) -> AnyChatFormat:
    """The format of a model's conversations: that of its template, else that of acorn's own BPE.

    Args:
        template: Jinja source; empty: the model has none.
        special_tokens, now, where: see `TemplateFormat`.

    Raises:
        UsageError: the model has no template, and its tokenizer is not acorn's own BPE.
        InputError: the template cannot be used.
    """
    if tokenizer.kind == "wordpiece":
        raise no_chat(tokenizer)
    if is_ours(tokenizer) and template in ("", TEMPLATE):
        return ChatFormat(tokenizer)
    if not template:
        raise no_chat(tokenizer)
    return TemplateFormat(tokenizer, template, special_tokens=special_tokens, now=now, where=where)


def named_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that a tokenizer_config.json names, such as `bos_token`, as templates get them."""
    named: dict[str, str] = {}
    for name, token in tokenizer_config.items():
        text = token.get("content") if isinstance(token, Mapping) else token
        if name.endswith("_token") and isinstance(text, str):
            named[name] = text
    return named
