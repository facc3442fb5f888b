"""A conversation with a model, turn by turn.

Every answer is what `generate` gives for the ids of the whole conversation so far: no cache outlives an answer, so an
answer depends on nothing but the messages, the settings and the seed. Where the conversation no longer fits the
context, its oldest turns are not read; the system message always is.

A model without a chat template has no turns: it continues the text of all messages. What it writes after it ended a
text is a new text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.text.examples import Message
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.template_format import AnyChatFormat
from acorn.tokenizer.tokenizer import Tokenizer

Ending = Literal["eos", "stop", "length", "context", "interrupted"]
"""Why an answer ended: by itself, before a stop string, at max_new_tokens, at the end of the context, by the user."""

ANSWER_SHARE = 0.25
"""Share of the context that is kept free for an answer, if max_new_tokens does not ask for less."""


@dataclass(frozen=True)
class Turn:
    """A message of the user and its answer."""

    question: str
    answer: str
    ending: Ending


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        turn: None: it was interrupted before its first character, so that the message was taken back.
        forgotten: oldest turns of the conversation that were not read.
    """

    turn: Turn | None
    forgotten: int


class _Interrupted(Exception):
    """The user stopped the answer."""


class Conversation:
    """A conversation with a language model.

    Args:
        format: of its conversations; None: the model continues text.
        end_ids, trained_ids: see `generate`.
        options: further arguments of `generate`.

    Attributes:
        turns: in order, also those that are no longer read.
        system: the system message; empty: none.

    Raises:
        UsageError: there is a system message, and the model continues text.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        format: AnyChatFormat | None,
        settings: SamplingSettings,
        *,
        system: str = "",
        end_ids: Sequence[int] = (),
        trained_ids: Sequence[int] = (),
        **options: Any,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.turns: list[Turn] = []
        self.system = ""
        self._chat, self._text = format, CompletionFormat(tokenizer)
        ends = {*end_ids, *(format.end_ids if format else ())}
        self._options = {"end_ids": sorted(ends), "trained_ids": trained_ids, **options}
        self.set_system(system)

    @property
    def continues_text(self) -> bool:
        return self._chat is None

    def warm_up(self) -> None:
        """Compiles what generation needs, so that the first answer does not wait for it and cannot interrupt it."""
        settings = dataclasses.replace(self.settings, max_new_tokens=2, seed=0)
        generate(self.model, self.tokenizer, [[self.tokenizer.separator_id]], settings, **self._options)

    def set_system(self, system: str) -> None:
        """Sets the system message, from the next answer on; empty: none.

        Raises:
            UsageError: the model continues text.
            InputError: the model cannot read it.
        """
        if system and self._chat is None:
            raise UsageError(
                "The model has no chat template, so there is no system message.",
                where="the system message",
                fix="leave it out, or finetune the model on conversations",
            )
        if system and self._chat is not None:
            self._chat.encode([Message("system", system, False), Message("user", "a", False)], to_answer=True)
        self.system = system

    def prompt_ids(self, question: str, first: int = 0) -> list[int]:
        """The ids that the model continues to answer `question`.

        Args:
            first: turns before this one are left out.

        Raises:
            InputError: a message cannot be encoded, or the chat template does not take the conversation.
        """
        turns = self.turns[first:]
        if self._chat is None:
            begin = max((number for number, turn in enumerate(turns, start=1) if turn.ending == "eos"), default=0)
            return self._text.encode_prompt(
                "".join(f"{turn.question}{turn.answer}\n" for turn in turns[begin:]) + question
            )
        messages = [Message("system", self.system, False)] if self.system else []
        for turn in turns:
            messages += [Message("user", turn.question, False), Message("assistant", turn.answer, False)]
        return self._chat.encode([*messages, Message("user", question, False)], to_answer=True).ids

    def ask(
        self,
        question: str,
        on_text: Callable[[str], None] = lambda text: None,
        is_stopped: Callable[[], bool] = lambda: False,
        seed: int | None = None,
    ) -> Reply:
        """Answers a message and adds both to the conversation.

        Args:
            on_text: called with each piece of the answer, in whole characters.
            is_stopped: asked before each token; true ends the answer.
            seed: of the answer, instead of that of the settings.

        Raises:
            InputError: the message is too long for the context or cannot be encoded. The conversation is unchanged.
            DamageError: the model's logits are not finite.
        """
        ids, forgotten = self._fitting(question)
        # The last token is not read again, so that it needs no position.
        free = self.model.config.block_size - len(ids) + 1
        limit = min(self.settings.max_new_tokens, free)
        seed = self.settings.seed if seed is None else seed
        settings = dataclasses.replace(self.settings, max_new_tokens=limit, seed=seed)
        answer = ""

        def add(_: int, piece: str) -> None:
            nonlocal answer
            answer += piece
            on_text(piece)

        def check() -> None:
            if is_stopped():
                raise _Interrupted

        try:
            (result,) = generate(
                self.model, self.tokenizer, [ids], settings, on_text=add, before_token=check, **self._options
            )
        except _Interrupted:
            turn = Turn(question, answer, "interrupted") if answer else None
            self.turns += [turn] if turn else []
            return Reply(turn, forgotten)
        is_cut = result.finish_reason == "length" and limit < self.settings.max_new_tokens
        self.turns.append(Turn(question, result.completion, "context" if is_cut else result.finish_reason))
        return Reply(self.turns[-1], forgotten)

    def undo(self) -> Turn | None:
        """Takes back the last message and its answer; None: there is none."""
        return self.turns.pop() if self.turns else None

    def record(self) -> tuple[dict[str, Any], int]:
        """The conversation as a row of `acorn finetune --task chat`, and the number of turns that are left out.

        Turns without an answer are, since such a row would be refused.
        """
        kept = [turn for turn in self.turns if turn.answer.strip() and turn.question.strip()]
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for turn in kept:
            messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return {"messages": messages}, len(self.turns) - len(kept)

    def _fitting(self, question: str) -> tuple[list[int], int]:
        """The ids of the prompt, and the number of oldest turns that were left out to make them fit.

        Raises:
            InputError: they do not fit without any turn.
        """
        context = self.model.config.block_size
        free = min(self.settings.max_new_tokens, int(ANSWER_SHARE * context))
        for first in range(len(self.turns) + 1):
            ids = self.prompt_ids(question, first)
            if len(ids) + free <= context:
                return ids, first
        if len(ids) <= context:  # what is left of the context is enough for a shorter answer
            return ids, first
        with_system = " with the system message" if self.system else ""
        raise InputError(
            f"The message{with_system} has {counted(len(ids), 'token')}, more than the model's context of {context:,}.",
            where="the message",
            fix="send a shorter one",
        )
