"""Parts of texts: which token's score comes with which part."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import LINES

from acorn.generate.job import Job, TokenScore, Update
from acorn.generate.settings import SamplingSettings
from acorn.generate.streaming import TextStream
from acorn.serve.mailbox import ClientGoneError, Mailbox
from acorn.serve.metrics import Metrics
from acorn.serve.pieces import Piece, Usage, joined, pieces
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: LINES, "bpe", 340)


def run(tokenizer: Tokenizer, job: Job, updates: list[Update]) -> tuple[list[Piece], Usage]:
    """The parts of one text."""

    async def collect() -> list[Piece]:
        mailbox = Mailbox(1, Metrics())
        for update in updates:
            mailbox.put(0, update)
        return [piece async for piece in pieces(mailbox, [job], tokenizer, usage, 1, [None])]

    usage = Usage(len(job.prompt_ids))
    return asyncio.run(collect()), usage


def updates_of(tokenizer: Tokenizer, job: Job, tokens: list[int]) -> list[Update]:
    """What the engine would report of these tokens."""
    stream, updates = TextStream(tokenizer, job.prompt_ids, job.settings.stop), []
    for number, token in enumerate(tokens, start=1):
        text = stream.add(token)
        reason = "stop" if stream.stopped else "length" if number == len(tokens) else None
        text += stream.finish() if reason else ""
        updates.append(Update(token, text, TokenScore(token, -1.0), finish_reason=reason))
        if reason:
            break
    return updates


@given(data=st.data())
def test_a_tokens_offset_is_where_its_text_is(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """Whatever is drawn: text of ordinary tokens, parts of characters, with a stop string or none."""
    tokens = data.draw(st.lists(st.integers(17, 339), min_size=1, max_size=20))
    stop = data.draw(st.sampled_from([(), ("e",), ("th", " o")]))
    job = Job((100,), SamplingSettings(stop=stop, seed=0), alternatives=0)
    parts, usage = run(tokenizer, job, updates_of(tokenizer, job, tokens))
    (whole,) = joined(parts, 1)
    ended_by_stop = whole.finish_reason == "stop"
    shown = [placed.token for placed in whole.tokens]
    assert shown == tokens[: len(shown)]
    assert ended_by_stop or shown == tokens
    seen = 0
    for part in parts:
        seen += len(part.text)
        assert all(placed.offset < seen or part.finish_reason for placed in part.tokens)
    for number, placed in enumerate(whole.tokens):
        before = tokenizer.decode([100, *tokens[:number]])[len(tokenizer.decode([100])) :]
        assert before.rstrip("\ufffd").startswith(whole.text[: placed.offset])
        assert placed.offset == len(before.rstrip("\ufffd"))
    assert usage.completion_tokens == len(updates_of(tokenizer, job, tokens))
    assert [part.finish_reason for part in parts if part.finish_reason] == [whole.finish_reason]


def test_a_client_that_left_ends_the_iteration() -> None:
    async def collect() -> None:
        mailbox = Mailbox(2, Metrics())
        mailbox.put(0, Update(token=1, text="a", finish_reason="length"))
        mailbox.client_gone()
        updates = mailbox.updates()
        assert (await anext(updates))[0] == 0
        with pytest.raises(ClientGoneError):
            await anext(updates)

    asyncio.run(collect())
