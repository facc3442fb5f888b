"""Sequences that join and leave at any time, compared with the same sequences alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from acorn.errors import UsageError
from acorn.generate.stepper import CHUNK_FLOPS, LONGEST_CHUNK, Feed, Stepper, chunk_tokens
from acorn.model.gpt import GPT

Build = Callable[..., GPT]
VOCAB_SIZE = 131


def alone(model: GPT, ids: list[int], prompt: int, **settings: object) -> Tensor:
    """Logits (n, V) after the first `prompt` ids and after each later one."""
    stepper = Stepper(model, 1, **settings)
    slot = stepper.join()
    rows = [read(stepper, slot, ids[:prompt])]
    rows += [stepper.feed([Feed(slot, [token])])[0][0] for token in ids[prompt:]]
    return torch.stack(rows)


def read(stepper: Stepper, slot: int, ids: list[int]) -> Tensor:
    """Reads a whole prompt; returns the next logits (V,)."""
    while True:
        begin, end = stepper.tokens(slot), stepper.part_end(slot, len(ids), 7)
        (logits,) = stepper.feed([Feed(slot, ids[begin:end])])
        if end == len(ids):
            return logits[0]


def together(model: GPT, texts: list[tuple[list[int], int]], size: int, seed: int, **settings: object) -> list[Tensor]:
    """The same for many texts (ids, length of the prompt), which join, are read and continued in a random order."""
    order = random.Random(seed)
    stepper = Stepper(model, size, **settings)
    waiting, reading, active = list(range(len(texts))), {}, {}
    logits: dict[int, list[Tensor]] = {number: [] for number in waiting}
    while waiting or reading or active:
        if waiting and stepper.has_room and order.random() < 0.5:
            reading[waiting.pop(0)] = stepper.join()
        feeds, owners = [], []
        if reading and order.random() < 0.7:
            number = order.choice(list(reading))
            ids, prompt = texts[number]
            begin = stepper.tokens(reading[number])
            end = stepper.part_end(reading[number], prompt, order.randint(1, 9))
            feeds, owners = [Feed(reading[number], ids[begin:end], int(end == prompt))], [number]
            if end == prompt:
                active[number] = reading.pop(number)
        chosen = [number for number in active if logits[number] and order.random() < 0.5]
        for number in [number for number in active if len(logits[number]) > len(texts[number][0]) - texts[number][1]]:
            stepper.leave(active.pop(number))
        for number in [number for number in chosen if number in active]:
            ids, prompt = texts[number]
            feeds.append(Feed(active[number], [ids[prompt + len(logits[number]) - 1]]))
            owners.append(number)
        if feeds:
            for number, rows in zip(owners, stepper.feed(feeds), strict=True):
                logits[number] += list(rows)
    assert stepper.has_room
    return [torch.stack(logits[number]) for number in range(len(texts))]


@pytest.mark.parametrize("decoder", ["native", "torch"])
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@torch.inference_mode()
def test_a_sequence_gets_the_same_logits_alone_and_among_others(
    random_model: Build, architecture: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In C to the last bit; in PyTorch up to the rounding of matmuls of other sizes."""
    monkeypatch.setattr("acorn.generate.stepper.LONGEST_CHUNK", 8)
    monkeypatch.setattr("acorn.generate.stepper.SHORTEST_CHUNK", 8)
    model = random_model(architecture, VOCAB_SIZE, block_size=32).eval()
    order = random.Random(0)
    texts = []
    for _ in range(14):
        length = order.randint(1, 32)
        texts.append(([order.randrange(VOCAB_SIZE) for _ in range(length)], order.randint(1, length)))
    for seed, found in enumerate(together(model, texts, 5, seed, decoder=decoder) for seed in range(3)):
        for (ids, prompt), logits in zip(texts, found, strict=True):
            expected = alone(model, ids, prompt, decoder=decoder)
            if decoder == "native":
                assert torch.equal(logits, expected), seed
            whole = model(torch.tensor([ids]))[0, prompt - 1 :]
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_sequence_that_is_forgotten_is_read_again(random_model: Build) -> None:
    model = random_model("modern", VOCAB_SIZE).eval()
    stepper = Stepper(model, 2)
    slot = stepper.join()
    first = read(stepper, slot, [1, 2, 3])
    assert stepper.tokens(slot) == 3
    stepper.forget(slot)
    assert stepper.tokens(slot) == 0
    assert not torch.equal(read(stepper, slot, [4, 5]), first)
    stepper.forget(slot)
    assert torch.equal(read(stepper, slot, [1, 2, 3]), first)


@torch.inference_mode()
def test_the_length_is_at_most_the_context(random_model: Build) -> None:
    model = random_model("gpt2", VOCAB_SIZE, block_size=16).eval()
    for decoder in ("native", "torch"):
        assert Stepper(model, 1, 99, decoder=decoder).length == 16
        stepper = Stepper(model, 1, 4, decoder=decoder)
        slot = stepper.join()
        read(stepper, slot, [1, 2, 3])
        stepper.feed([Feed(slot, [4])])
        with pytest.raises(ValueError, match="cache"):
            stepper.feed([Feed(slot, [5])])


def test_chunks_depend_on_the_size_of_the_model_only(random_model: Build) -> None:
    small = random_model("modern", VOCAB_SIZE)
    assert chunk_tokens(small) == LONGEST_CHUNK
    lone = GPT(small.config.model_copy(update={"n_layer": 1, "n_embd": 512, "vocab_size": 4_000}))
    parameters = sum(parameter.numel() for parameter in lone.parameters())
    tokens = chunk_tokens(lone)
    assert tokens <= CHUNK_FLOPS / (2 * parameters) < 2 * tokens
    with torch.device("meta"):
        elsewhere = GPT(small.config)
    assert chunk_tokens(elsewhere) == LONGEST_CHUNK


def test_an_unavailable_native_decoder_is_refused(random_model: Build) -> None:
    model = random_model("modern", VOCAB_SIZE).to(torch.float16)
    with pytest.raises(UsageError, match="does not support float16"):
        Stepper(model, 1, decoder="native")
