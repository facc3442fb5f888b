"""What label heads say of padded batches, against examples computed one by one and PyTorch's losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import random_model_of

from acorn.data.example_batches import micro_batches
from acorn.data.examples import TokenExample
from acorn.evaluate.label_outputs import label_loss, label_outputs, probabilities_of
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.runtime.device import Runtime

RUNTIME = Runtime("cpu", "fp32", False, 1, True)
VALUES = {
    "class": lambda draw: np.array([draw.integers(3)]),
    "labels": lambda draw: draw.integers(0, 2, (1, 3)).astype(np.float32),
    "value": lambda draw: draw.normal(size=(1, 3)).astype(np.float32),
}


def model_of(architecture: str, spec: HeadSpec) -> GPT:
    config = random_model_of(architecture, 50, 64).config
    model = GPT(config, head=spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def examples_of(kind: str, count: int = 20) -> list[TokenExample]:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        ids = draw.integers(0, 50, draw.integers(1, 64)).astype(np.int32)
        found.append(TokenExample(ids, np.array([len(ids) - 1]), VALUES[kind](draw)))
    return found


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_padding_changes_nothing(architecture: str) -> None:
    """Each example alone and without padding has the outputs that it has in its batch, in the order given."""
    model, examples = model_of(architecture, HeadSpec("class", 3)), examples_of("class")
    outputs = label_outputs(model, examples, RUNTIME, 0)
    assert model.training, "the mode is as before"
    model.eval()
    for example, row in zip(examples, outputs, strict=True):
        with torch.no_grad():
            alone = model(torch.from_numpy(example.ids).long()[None])[0, -1]
        assert row == pytest.approx(alone.numpy(), abs=1e-5)


@pytest.mark.parametrize("spec", [HeadSpec("class", 3), HeadSpec("class", 3, class_weights=(1.0, 2.0, 0.5))])
@pytest.mark.parametrize("tokens", [64, 300, 4096])
def test_the_loss_of_any_grouping_is_that_of_the_model(spec: HeadSpec, tokens: int) -> None:
    model, examples = model_of("modern", spec).eval(), examples_of("class")
    total, count = label_loss(label_outputs(model, examples, RUNTIME, 0), examples, "class", spec.class_weights)
    with torch.no_grad():
        parts = [model(ids, targets, rows=rows) for ids, targets, rows in micro_batches(examples, 64, tokens, 0)]
    assert total == pytest.approx(sum(float(loss) for loss, _ in parts), rel=1e-6)
    assert count == pytest.approx(sum(float(n) for _, n in parts))


@pytest.mark.parametrize("kind", ["labels", "value"])
def test_the_loss_of_numbers_is_that_of_the_model(kind: str) -> None:
    model, examples = model_of("gpt2", HeadSpec(kind, 3)).eval(), examples_of(kind)
    total, count = label_loss(label_outputs(model, examples, RUNTIME, 0), examples, kind)
    with torch.no_grad():
        parts = [model(ids, targets, rows=rows) for ids, targets, rows in micro_batches(examples, 64, 300, 0)]
    assert (total, count) == (pytest.approx(sum(float(loss) for loss, _ in parts), rel=1e-5), 3 * len(examples))


def test_probabilities() -> None:
    outputs = np.array([[0.0, 0.0, np.log(2)]])
    assert probabilities_of(outputs, "class").tolist() == [pytest.approx([0.25, 0.25, 0.5])]
    assert probabilities_of(outputs, "labels").tolist() == [pytest.approx([0.5, 0.5, 2 / 3])]


def test_a_tagger_is_read_at_every_word() -> None:
    """The outputs at all words, sentence by sentence, and the loss that the model computes."""
    model, draw = model_of("modern", HeadSpec("tag", 3)).eval(), np.random.default_rng(1)
    examples = []
    for _ in range(20):
        ids = draw.integers(0, 50, draw.integers(2, 64)).astype(np.int32)
        rows = np.flatnonzero(draw.integers(0, 2, len(ids) - 1) | (np.arange(len(ids) - 1) == 0))
        examples.append(TokenExample(ids, rows, draw.integers(0, 3, len(rows))))
    outputs = label_outputs(model, examples, RUNTIME, 0)
    with torch.no_grad():
        alone = [model(torch.from_numpy(one.ids).long()[None])[0, torch.from_numpy(one.rows)] for one in examples]
        parts = [model(ids, targets, rows=rows) for ids, targets, rows in micro_batches(examples, 64, 300, 0)]
    assert outputs == pytest.approx(torch.cat(alone).numpy(), abs=1e-5)
    total, count = label_loss(outputs, examples, "tag")
    assert (total, count) == (pytest.approx(sum(float(loss) for loss, _ in parts), rel=1e-5), len(outputs))
    assert probabilities_of(outputs, "tag").sum(axis=1) == pytest.approx(np.ones(len(outputs)))
