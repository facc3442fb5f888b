"""Conversations: what the model reads, what is kept, what is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from other_models import style

from acorn.errors import InputError, UsageError
from acorn.generate.conversation import Conversation, Turn
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.text.examples import Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.template_format import AnyChatFormat, TemplateFormat
from acorn.tokenizer.tokenizer import Tokenizer

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

SETTINGS = SamplingSettings(max_new_tokens=6, seed=3)


@pytest.fixture
def chat(random_model: Callable[..., GPT], bpe: Tokenizer) -> Callable[..., Conversation]:
    """A conversation with a random model of 64 positions."""

    def build(settings: SamplingSettings = SETTINGS, format: AnyChatFormat | None = None, **more) -> Conversation:
        tokenizer = format.tokenizer if format else bpe
        model = random_model("modern", tokenizer.vocab_size, more.pop("block_size", 64))
        return Conversation(model, tokenizer, format or ChatFormat(bpe), settings, **more)

    return build


def messages_of(conversation: Conversation, question: str) -> list[Message]:
    found = [Message("system", conversation.system, False)] if conversation.system else []
    for turn in conversation.turns:
        found += [Message("user", turn.question, False), Message("assistant", turn.answer, False)]
    return [*found, Message("user", question, False)]


@pytest.mark.parametrize("own_template", [False, True])
def test_an_answer_is_what_generate_gives_for_the_whole_conversation(chat, own_template: bool) -> None:
    """Streamed in pieces that join to it, for acorn's format and for another model's template."""
    format = None
    if own_template:
        tokenizer = Tokenizer.from_json(style("qwen3")[0], as_it_is=True)
        format = TemplateFormat(tokenizer, CHATML, special_tokens={}, now=datetime(2026, 1, 1))
    conversation = chat(format=format, system="Be brief.", block_size=256)
    known = format or ChatFormat(conversation.tokenizer)
    for question in ("Who?", "Việt 🙂 <|end|>", "Where?"):
        ids = known.encode(messages_of(conversation, question), to_answer=True).ids
        (alone,) = generate(conversation.model, conversation.tokenizer, [ids], SETTINGS, end_ids=known.end_ids)
        pieces: list[str] = []
        reply = conversation.ask(question, pieces.append)
        assert reply.turn == Turn(question, alone.completion, alone.finish_reason)
        assert "".join(pieces) == alone.completion
        assert reply.forgotten == 0


def test_a_seed_of_its_own_gives_another_answer(chat) -> None:
    conversation = chat(SamplingSettings(max_new_tokens=12, temperature=2.0, seed=3))
    first = conversation.ask("Who?").turn
    assert conversation.undo() == first
    assert conversation.ask("Who?", seed=4).turn != first
    conversation.undo()
    assert conversation.ask("Who?").turn == first


def test_a_full_context_drops_the_oldest_turns_and_keeps_the_system_message(chat) -> None:
    conversation = chat(system="oak")
    forgotten = [conversation.ask(f"the old oak {number}").forgotten for number in range(5)]
    assert forgotten[0] == 0
    assert forgotten == sorted(forgotten)
    assert forgotten[-1] > 0
    last = conversation.turns.pop()
    ids = conversation.prompt_ids("the old oak 4", forgotten[-1])
    system = ChatFormat(conversation.tokenizer).encode([Message("system", "oak", False)]).ids
    assert ids[: len(system)] == system
    assert len(ids) + 6 <= 64 < len(conversation.prompt_ids("the old oak 4", forgotten[-1] - 1)) + 6
    ends = ChatFormat(conversation.tokenizer).end_ids
    (alone,) = generate(conversation.model, conversation.tokenizer, [ids], SETTINGS, end_ids=ends)
    assert alone.completion == last.answer


def test_a_message_longer_than_the_context_leaves_the_conversation_as_it_is(chat) -> None:
    conversation = chat()
    conversation.ask("Who?")
    before = list(conversation.turns)
    with pytest.raises(InputError, match="more than the model's context of 64"):
        conversation.ask("oak " * 80)
    assert conversation.turns == before


def test_an_answer_ends_with_the_context(chat) -> None:
    """It never goes on from a part of the conversation; the last token needs no position."""
    conversation = chat(SamplingSettings(max_new_tokens=500, seed=1, ignore_eos=True))
    ids = conversation.prompt_ids("Who?")
    turn = conversation.ask("Who?").turn
    assert turn.ending == "context"
    settings = SamplingSettings(max_new_tokens=64 - len(ids) + 1, seed=1, ignore_eos=True)
    ends = ChatFormat(conversation.tokenizer).end_ids
    notes: list[str] = []
    (alone,) = generate(conversation.model, conversation.tokenizer, [ids], settings, end_ids=ends, note=notes.append)
    assert alone.completion == turn.answer
    assert not any("context" in note for note in notes)


def test_a_stopped_answer_is_kept_as_far_as_it_went(chat) -> None:
    conversation = chat(SamplingSettings(max_new_tokens=40, seed=3, ignore_eos=True))
    pieces: list[str] = []
    turn = conversation.ask("Who?", pieces.append, is_stopped=lambda: len(pieces) >= 2).turn
    assert turn == Turn("Who?", "".join(pieces), "interrupted")
    assert conversation.turns == [turn]
    assert conversation.ask("Who?", is_stopped=lambda: True).turn is None
    assert conversation.turns == [turn]


def test_without_a_template_the_text_goes_on(random_model, bpe: Tokenizer) -> None:
    """Until the model ends it: then the next message begins a text."""
    model = random_model("modern", bpe.vocab_size, 256)
    conversation = Conversation(model, bpe, None, SETTINGS)
    assert conversation.continues_text
    assert conversation.prompt_ids("The") == [bpe.separator_id, *bpe.encode_documents("The")[0]]
    conversation.turns = [Turn("a", " b", "eos"), Turn("c", " d", "length"), Turn("e", "f", "interrupted")]
    text = "c d\nef\ng"
    assert conversation.prompt_ids("g") == [bpe.separator_id, *bpe.encode_documents(text)[0]]
    with pytest.raises(UsageError, match="no chat template"):
        conversation.set_system("Be brief.")


def test_what_is_saved_has_no_empty_answer(chat) -> None:
    conversation = chat(system="Be brief.")
    conversation.turns = [Turn("a", "b", "eos"), Turn("c", " ", "eos"), Turn("d", "e", "length")]
    roles = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "d"), ("assistant", "e")]
    messages = [{"role": role, "content": content} for role, content in roles]
    assert conversation.record() == ({"messages": messages}, 1)
