"""Generates a model's answers to the prompts of examples, in the same way as a user gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acorn.evaluate.answers import Answer
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.text.examples import Chat, Completion, Example, Message
from acorn.tokenizer.chat_format import ANSWERING
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.template_format import AnyChatFormat
from acorn.tokenizer.tokenizer import Tokenizer

LENGTH_FACTOR = 2
"""An answer is stopped when it has this many times the tokens of the longest expected one; it then did not end by
itself."""

_SPARE = 16  # tokens


@dataclass(frozen=True)
class Question:
    """A prompt for a model.

    Attributes:
        ids: the prompt as token ids.
        shown: the prompt as text for people.
        expected: the answer in the data; empty: unknown.
    """

    ids: list[int]
    shown: str
    expected: str = ""


def questions_of(
    examples: Sequence[Example], format: AnyChatFormat | CompletionFormat, limit: int | None = None
) -> list[Question]:
    """The questions of examples: their prompts; of a conversation, the messages before each trained answer.

    Args:
        limit: at most so many, the first ones; None: all.
    """
    found: list[Question] = []
    for example in examples:
        if limit is not None and len(found) >= limit:
            break
        if isinstance(format, CompletionFormat):
            assert isinstance(example, Completion)
            found.append(Question(format.encode_prompt(example.prompt), example.prompt, example.completion))
            continue
        assert isinstance(example, Chat)
        for number, message in enumerate(example.messages):
            if message.role == ANSWERING and message.trained and number:
                before = example.messages[:number]
                ids = format.encode(before, to_answer=True).ids
                found.append(Question(ids, shown_chat(before), message.content))
    return found if limit is None else found[:limit]


def asked(prompts: Sequence[str], format: AnyChatFormat | CompletionFormat) -> list[Question]:
    """Makes questions of the user's own prompts; in a chat format, each prompt is the first message."""
    if isinstance(format, CompletionFormat):
        return [Question(format.encode_prompt(prompt), prompt) for prompt in prompts]
    chats = [(Message("user", prompt, False),) for prompt in prompts]
    return [Question(format.encode(chat, to_answer=True).ids, shown_chat(chat)) for chat in chats]


def shown_chat(messages: Sequence[Message]) -> str:
    """A conversation up to an answer as text for people: one line for each message, with its role."""
    lines = [f"{message.role}: {message.content}" for message in messages]
    return "\n".join([*lines, f"{ANSWERING}: "])


def answered(
    model: GPT,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    end_ids: Sequence[int],
    runtime: Runtime,
    progress: Progress,
    *,
    most_tokens: int | None = None,
    task: str = "Answering",
) -> list[Answer]:
    """The model's answers, generated greedily.

    Args:
        most_tokens: largest length of an answer; None: derived from the longest expected answer.
        task: name of the work in progress reports. An exception from `progress` ends the work.

    Raises:
        DamageError: the logits are not finite.
    """
    if most_tokens is None:
        longest = max((len(ids) for ids in tokenizer.encode_documents([q.expected for q in questions])), default=0)
        most_tokens = min(LENGTH_FACTOR * longest + _SPARE, model.config.block_size)
    settings = SamplingSettings(max_new_tokens=most_tokens, greedy=True, seed=0)
    drawn = 0

    def report() -> None:
        nonlocal drawn
        progress.at(task, drawn, len(questions) * most_tokens, "tokens")
        drawn += 1

    with runtime.autocast():
        prompts = [question.ids for question in questions]
        results = generate(model, tokenizer, prompts, settings, end_ids=end_ids, before_token=report)
    progress.end(task)
    return [
        Answer(question.shown, question.expected, result.completion, result.finish_reason == "eos")
        for question, result in zip(questions, results, strict=True)
    ]


def round_trip_of(tokenizer: Tokenizer) -> Callable[[str], str]:
    """`decode(encode(text))`: the form of a text that a model with this tokenizer can generate."""
    return lambda text: tokenizer.decode(tokenizer.encode_documents(text)[0])
