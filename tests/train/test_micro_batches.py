"""Examples of mixed lengths: any grouping into micro-batches gives the same loss and gradients."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from acorn.config import Config, ModelConfig, OptimizerConfig
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.loss import IGNORE
from acorn.runtime.device import Runtime
from acorn.train.forward_backward import eager_forward_backward
from acorn.train.network import build_network
from acorn.train.training_data import Batch, MicroBatch

RUNTIME = Runtime("cpu", "fp32", False, 1, True)
V = 61

HEADS: dict[str, HeadSpec | None] = {
    "language model": None,
    "class": HeadSpec("class", 3, class_weights=(0.5, 1.0, 3.0)),
    "labels": HeadSpec("labels", 4),
    "value": HeadSpec("value", 1),
    "tag": HeadSpec("tag", 5, bias=True),
}


@dataclasses.dataclass(frozen=True)
class Example:
    ids: Tensor
    targets: Tensor
    counted: list[int]


def examples(head: HeadSpec | None) -> list[Example]:
    """Ten of 3 to 24 tokens; answers, or a label at the last token, or a tag at every other one."""
    generator, found = torch.Generator().manual_seed(3), []
    for number, length in enumerate((3, 24, 7, 7, 12, 18, 5, 23, 9, 16)):
        ids = torch.randint(V, (length,), generator=generator)
        counted = [length - 1]
        if head is None:
            counted = list(range(length // 2, length))
        elif head.kind == "tag":
            counted = list(range(0, length, 2))
        if head is None or head.has_classes:
            targets = torch.full((length,), IGNORE)
            targets[counted] = torch.arange(len(counted)) % (3 if head else V) + (number % 2)
            targets.clamp_(max=2 if head else V - 1)
        else:
            targets = torch.full((length, head.outputs), math.nan)
            targets[counted] = torch.rand(len(counted), head.outputs, generator=generator).round(decimals=1)
            if head.kind == "labels":
                targets = targets.round()
        found.append(Example(ids, targets, counted))
    return found


def micro_batch(some: list[Example], gathered: bool) -> MicroBatch:
    """Padded on the right, to a length beyond the longest."""
    T = max(len(example.ids) for example in some) + 2
    filling = math.nan if some[0].targets.is_floating_point() else IGNORE
    ids = torch.zeros(len(some), T, dtype=torch.long)
    targets = torch.full((len(some), T, *some[0].targets.shape[1:]), filling, dtype=some[0].targets.dtype)
    rows = []
    for number, example in enumerate(some):
        ids[number, : len(example.ids)] = example.ids
        targets[number, : len(example.ids)] = example.targets
        rows += [number * T + place for place in example.counted]
    return ids, targets, torch.tensor(rows) if gathered else None


def batch(model: GPT, some: list[Example], sizes: list[int], gathered: bool) -> Batch:
    begins = [sum(sizes[:n]) for n in range(len(sizes))]
    groups = [some[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
    count = sum(model.count(example.targets) for example in some)
    tokens = sum(len(example.ids) for example in some)
    return Batch([micro_batch(group, gathered) for group in groups], tokens, count, 26)


def network(head: HeadSpec | None, lora: LoraSpec | None = None, **shape: Any) -> GPT:
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "block_size": 32, "vocab_size": V}
    config = Config(model=ModelConfig(**sizes | shape), optimizer=OptimizerConfig(name="adamw"))
    model, _ = build_network(config, RUNTIME, head=head, lora=lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model


def loss_and_gradients(model: GPT, work: Batch) -> tuple[float, Tensor]:
    run = eager_forward_backward(model, RUNTIME)
    model.zero_grad(set_to_none=True)
    loss = sum(float(run(part, 1 / work.count)) for part in work.micro_batches) / work.count
    return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("lora", [None, LoraSpec(2, 4.0, markup_ids=(1, 60))], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize("name", HEADS)
def test_any_grouping_gives_the_same_loss_and_gradients(name: str, architecture: str, lora: LoraSpec | None) -> None:
    """To 1e-6 in fp32, with acorn's own kernels: in any order, any padding, with all rows and with counted rows only.

    The reference is one example at a time, without padding.
    """
    model, some = network(HEADS[name], lora, architecture=architecture), examples(HEADS[name])
    count = sum(model.count(example.targets) for example in some)
    alone = Batch([(e.ids[None], e.targets[None], None) for e in some], 1, count, 24)
    expected, gradients = loss_and_gradients(model, alone)
    assert gradients.abs().max() > 1e-3
    mixed = random.Random(0).sample(some, len(some))
    for order, sizes in ((some, [10]), (some, [1] * 10), (mixed, [3, 4, 2, 1]), (mixed, [7, 3])):
        for gathered in (True, False):
            found, others = loss_and_gradients(model, batch(model, order, sizes, gathered))
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
            torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)


def test_a_gpu_computes_all_rows() -> None:
    """A gather of another size each time could not be captured; the targets say which rows are counted."""
    seen = []

    def loss_function(ids: Tensor, targets: Tensor, *, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen.append(rows)
        return ids.sum() * torch.zeros((), device="meta", requires_grad=True), targets

    ids, targets, rows = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3), torch.tensor([1])
    eager_forward_backward(loss_function, dataclasses.replace(RUNTIME, device="meta"))((ids, targets, rows), 1.0)
    assert seen == [None]
