"""Exports of models with label heads: checked in transformers, and refused as GGUF."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_models import classifier_for

from acorn.checkpoint.label_config import reader_of
from acorn.checkpoint.load import LoadedModel, load
from acorn.checkpoint.model_folder import write_model_folder
from acorn.errors import DamageError, UsageError
from acorn.export import export as module
from acorn.export.card import card_of
from acorn.export.export import export
from acorn.export.parity import compare
from acorn.export.probe import Probe
from acorn.export.runtimes import RUNTIMES, Answer, Question, Runtime
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer

LABELS = ("a", "b", "c")


@pytest.fixture
def classifier(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a model with a label head."""

    def write(head: HeadSpec, architecture: str = "modern") -> Path:
        texts = LabelText(tokenizer).tokenizer
        model = classifier_for(texts, head, architecture=architecture, block_size=64)
        write_model_folder(tmp_path / "a model", model, texts, "# Card\n", labels=LABELS[: head.outputs])
        return tmp_path / "a model"

    return write


@pytest.mark.parametrize(
    ("head", "architecture"), [(HeadSpec("class", 3), "modern"), (HeadSpec("tag", 2, bias=True), "gpt2")]
)
def test_transformers_agrees_with_the_export(
    classifier: Callable[..., Path], tmp_path: Path, head: HeadSpec, architecture: str
) -> None:
    source, out = classifier(head, architecture), tmp_path / "out"
    parity = export(source, out, "hf").parity
    assert (parity.lines_equal, parity.strings_equal) == (2000, 200)
    assert parity.probability_difference is not None
    assert parity.probability_difference < 1e-4
    assert parity.likeliest_agreement == 1
    assert (parity.logit_positions == 64) == (head.kind == "class")
    assert parity.greedy_tokens is parity.greedy_required is None
    assert json.loads((out / "parity.json").read_text()) == dataclasses.asdict(parity)
    back = load(out)
    assert (back.labels, back.model.head_spec) == (LABELS[: head.outputs], head)
    assert (out / "README.md").read_text() == "# Card\n"


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("head", [HeadSpec("labels", 3), HeadSpec("value", 1)])
def test_an_export_in_half_precision_reads_back(
    classifier: Callable[..., Path], tmp_path: Path, head: HeadSpec
) -> None:
    source = classifier(head, "original")
    export(source, tmp_path / "out", "hf", "bf16")
    before, after = load(source), load(tmp_path / "out")
    assert (before.task, before.labels) == (after.task, after.labels)
    weights = dict(after.model.named_parameters())
    for name, weight in before.model.named_parameters():
        assert torch.equal(weight.bfloat16().float(), weights[name]), name


def test_a_classifier_is_not_exported_to_gguf(classifier: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="gives each text a label; acorn writes GGUF files of language models"
    ) as caught:
        export(classifier(HeadSpec("class", 3)), tmp_path / "out", "gguf")
    assert caught.value.exit_code == 2
    assert caught.value.fix == "use --format hf"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["order", "position"])
def test_an_export_whose_labels_differ_is_removed(
    classifier: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    source = classifier(HeadSpec("class", 3))
    loaded = load(source)

    def ask(runtime: Runtime, model: Path, question: Question) -> Answer:
        assert question.reader == "sequence"
        with torch.no_grad():
            outputs = [loaded.model(torch.tensor([window]))[0, -1:] for window in question.windows]
            if wrong == "order":
                outputs = [output.flip(-1) for output in outputs]
            else:  # the last token but one, of those that are long enough
                outputs = [loaded.model(torch.tensor([w]))[0, -min(len(w), 2)][None] for w in question.windows]
        return Answer("1.0", loaded.label_text.encode(question.texts), outputs, [])

    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(Runtime, "installed", True)
    with pytest.raises(DamageError, match="outputs of the label head differ"):
        export(source, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["class", "labels", "value"])
@pytest.mark.parametrize("difference", [0.0, 1e-5, 0.05, float("nan")])
def test_the_limits_of_outputs(kind: Any, difference: float) -> None:
    head = HeadSpec(kind, 1 if kind == "value" else 2)
    ours = [torch.full((1, head.outputs), 2.0), torch.zeros(1, head.outputs)]
    theirs = [output.clone() for output in ours]
    theirs[0][0, 0] += difference
    question = Question(["a"], [[0], [1]], [], reader_of(head))
    probe = Probe(question, 1, {"somewhere": 1}, [[0]], ours, [], head)
    answer = Answer("1.2", [[0]], theirs, [])

    def parity(dtype: str) -> Any:
        return compare(probe, answer, [[0]], format="hf", dtype=dtype, runtime=RUNTIMES["hf"], weight_difference=0.0)

    if difference > 1e-4 or difference != difference:
        with pytest.raises(DamageError):
            parity("f32")
    else:
        assert parity("f32").logit_difference == pytest.approx(difference, abs=1e-6)
        assert (parity("f32").probability_difference is None) == (kind == "value")
    if difference == 0.05:
        assert parity("bf16").logit_difference_in_deviations == pytest.approx(0.05 / 2**0.5, rel=1e-4)


def test_a_card_of_an_unknown_classifier_does_not_call_it_a_language_model(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for head, tag in ((HeadSpec("labels", 2), "text-classification"), (HeadSpec("tag", 2), "token-classification")):
        model = classifier_for(tokenizer, head)
        card = card_of(LoadedModel(model, tokenizer, model.config, tmp_path, None, labels=LABELS[:2]))
        assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == tag
        assert "language model" not in card
        assert "A model that gives each" in card
