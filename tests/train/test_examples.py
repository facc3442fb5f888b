"""Examples as the training data of a loop."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import LINES, model_for

from acorn.config_files import load_config, with_values
from acorn.data.examples import CompletionEncoder, encode_side
from acorn.data.replay import Replay
from acorn.data.token_shards import TokenSequence
from acorn.progress import QUIET
from acorn.runtime.device import Runtime
from acorn.text.examples import Chat, Completion, Message
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.training import train
from acorn.train.answers import asked, questions_of
from acorn.train.examples import Examples, answer_loss, first_tokens
from acorn.train.task import FinetuningTask

RUNTIME = Runtime("cpu", "fp32", False, 1, True)


@pytest.fixture(scope="module")
def tokenizer():
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture
def data(tokenizer) -> Examples:
    """30 completions of lengths from 3 to 40 tokens or so."""
    format = CompletionFormat(tokenizer)
    task = FinetuningTask("complete", tokenizer, CompletionEncoder(format), format=format)
    examples = [Completion("an oak " * (n % 6), f"grew {n}", "") for n in range(30)]
    side = encode_side("train", examples, task.encoder, 64, "refuse")
    config = with_values(load_config("small", ["train.steps=5"]), {"model.block_size": 64, "train.micro_batch_size": 4})
    return Examples(task, {"train": side, "valid": side}, config)


def test_a_batch_has_the_examples_of_its_samples(data: Examples) -> None:
    """Every example once an epoch; the counts are those of what was put in."""
    tokens = data.sides["train"].tokens
    batches = [data.batch(first, 10, rollbacks=0, done=0.0) for first in range(0, 30, 10)]
    assert sum(batch.tokens for batch in batches) == sum(len(example.ids) for example in tokens)
    assert sum(batch.count for batch in batches) == sum(len(example.rows) for example in tokens)
    assert data.epochs(30) == 1
    again = data.batch(10, 10, rollbacks=0, done=0.5)
    for one, other in zip(batches[1].micro_batches, again.micro_batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:2], other[:2], strict=True))


def test_the_loss_does_not_depend_on_the_micro_batches(data: Examples, tokenizer) -> None:
    """Sums over counted tokens agree to 1e-6 in fp32, from one example a micro-batch to all in one."""
    model = model_for(tokenizer, "modern")
    losses = []
    for size in (1, 3, 30):
        config = with_values(data.config, {"train.micro_batch_size": size})
        batch = dataclasses.replace(data, config=config).batch(0, 30, rollbacks=0, done=0.0)
        with torch.no_grad():
            losses.append(sum(float(model(i, t, rows=r)[0]) for i, t, r in batch.micro_batches) / batch.count)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    total, count = answer_loss(model, data.sides["valid"].tokens, RUNTIME, 0, QUIET)
    assert total / count == pytest.approx(losses[0], rel=1e-6)


def test_windows_of_the_bases_text_count_as_examples_do(data: Examples, tokenizer, tmp_path: Path) -> None:
    """By their counted tokens, whatever the micro-batches are; each example is still seen once an epoch."""
    (np.arange(1000) % 300).astype("<u2").tofile(tmp_path / "a.bin")
    tokens = TokenSequence([tmp_path / "a.bin"], np.dtype("<u2"))
    model, found = model_for(tokenizer, "modern"), []
    mixed = dataclasses.replace(data, replay=Replay(tokens, Fraction(1, 4), 64, seed=3))
    for size in (1, 3, 40):
        config = with_values(data.config, {"train.micro_batch_size": size})
        batch = dataclasses.replace(mixed, config=config).batch(0, 40, rollbacks=0, done=0.0)
        model.zero_grad()
        loss = sum(model(i, t, rows=r)[0] for i, t, r in batch.micro_batches) / batch.count
        loss.backward()
        found.append((loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    alone = data.batch(0, 30, rollbacks=0, done=0.0)
    assert batch.count == alone.count + 10 * 64
    assert batch.tokens == alone.tokens + 10 * 64
    assert (mixed.epochs(40), mixed.row_tokens) == (1, 64)
    assert [loss for loss, _ in found] == pytest.approx([found[0][0]] * 3, rel=1e-6)
    for _, gradients in found[1:]:
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, gradient in gradients.items():
            assert float((gradient - found[0][1][name]).abs().max()) <= 1e-6 * largest


def test_a_batch_of_windows_alone(data: Examples, tmp_path: Path) -> None:
    np.arange(100, dtype="<u2").tofile(tmp_path / "a.bin")
    tokens = TokenSequence([tmp_path / "a.bin"], np.dtype("<u2"))
    mixed = dataclasses.replace(data, replay=Replay(tokens, Fraction(9, 10), 64, seed=3))
    assert mixed.batch(8, 2, rollbacks=0, done=0.0).count > 64
    assert mixed.batch(2, 2, rollbacks=0, done=0.0).count == 2 * 64


def test_a_score_has_the_figures_of_generated_answers(data: Examples, tokenizer) -> None:
    score = data.score(model_for(tokenizer, "modern"), RUNTIME, QUIET)
    assert set(score.figures) == {"exact_match", "normalized_match", "ended_rate"}
    assert len(data.samples(model_for(tokenizer, "modern"), RUNTIME, QUIET)) == 3


def test_a_part_of_a_side_has_its_first_examples(data: Examples) -> None:
    side = data.sides["valid"]
    part = first_tokens(side, len(side.tokens[0].ids) + 1)
    assert (part.examples, len(part.tokens)) == (side.examples[:2], 2)
    assert len(first_tokens(side, 1).tokens) == 1
    assert first_tokens(side, 0) is side


def test_each_trained_answer_of_a_conversation_is_a_question(tokenizer) -> None:
    format = ChatFormat(tokenizer)
    roles = [("user", False), ("assistant", False), ("user", False), ("assistant", True)]
    chat = Chat(tuple(Message(role, f"m{n}", trained) for n, (role, trained) in enumerate(roles)), "")
    [question] = questions_of([chat], format)
    assert question.ids == format.encode(chat.messages[:3], to_answer=True).ids
    assert (question.shown, question.expected) == ("user: m0\nassistant: m1\nuser: m2\nassistant: ", "m3")
    assert asked(["hi"], format)[0].shown == "user: hi\nassistant: "
