"""The card of a classifier, tagger or regressor: read back by the Hub's own library."""

from __future__ import annotations

import dataclasses
from typing import Any

import huggingface_hub
import pytest

from acorn.checkpoint.task_card import MOST_LISTED, TaskFacts, write_task_card
from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.origin import Base

EVALUATION: dict[str, Any] = {
    "split": "test",
    "task": "classify",
    "examples": 1_209,
    "accuracy": 0.98765432,
    "macro_f1": 0.75,
    "expected_calibration_error": None,
    "labels": ["ham", "spam"],
    "baselines": {"majority": {"accuracy": 0.6864}, "tfidf_logistic": None, "random_weights": {"accuracy": 0.91}},
}
FACTS = TaskFacts(
    name="mails",
    config=ModelConfig(vocab_size=300, n_layer=1, n_embd=32, n_head=2, block_size=64),
    head=HeadSpec("class", 2),
    labels=("ham", "spam | eggs\nЖ"),
    tokenizer_kind="bpe",
    sources=("/home/me/mails.csv", "hf:me/mails"),
    examples=4_837,
    steps=120,
    recipe={"optimizer": "adamw", "peak learning rate": 0.0003, "epochs": 3},
    evaluations=(EVALUATION,),
    bases=(Base("base", "run", "step 20"), Base("me/mine", "hub", "revision 0123", "mit")),
)


def changed(**changes: object) -> str:
    return write_task_card(dataclasses.replace(FACTS, **changes))  # type: ignore[arg-type]


def test_the_hub_reads_the_metadata() -> None:
    data = huggingface_hub.ModelCard(write_task_card(FACTS)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.tags == ["acorn", "qwen3"]
    assert data.base_model == "me/mine"
    assert data.datasets == ["me/mails"]
    results = {(result.metric_type, result.metric_name): result.metric_value for result in data.eval_results}
    assert results == {("accuracy", "Accuracy"): 0.98765, ("f1", "Macro F1"): 0.75}
    assert {result.task_type for result in data.eval_results} == {"text-classification"}


def test_labels_figures_and_baselines_are_told() -> None:
    card = write_task_card(FACTS)
    for line in (
        "| 0 | ham |",
        "| 1 | spam \\| eggs Ж |",
        "| Test split | this model | Most frequent label | Same network from random weights |",
        "| Accuracy | 0.98765 | 0.6864 | 0.91 |",
        "| Macro F1 | 0.75 |  |  |",
        "| examples | 4,837 |",
        "| output head | 2 outputs at the last token |",
        "Of 1,209 examples.",
    ):
        assert line in card.splitlines()
    assert "gives each text one of 2 labels" in card
    assert "does not generate text" in card
    assert "/home/me" not in card
    assert "Expected calibration" not in card
    parameters = sum(weight.numel() for weight in GPT(FACTS.config, head=FACTS.head).parameters())
    assert f"| parameters | {parameters:,} |" in card


@pytest.mark.parametrize(
    ("head", "tag", "said"),
    [
        (HeadSpec("labels", 2), "text-classification", ["any of 2 labels", "top_k=None", "| 0 | ham |"]),
        (HeadSpec("value", 1), "text-classification", ["gives each text a value", "`score` is the value"]),
        (HeadSpec("tag", 2), "token-classification", ["each word of a sentence one of 2 labels", "for each token |"]),
    ],
)
def test_each_kind_of_head_says_what_it_gives(head: HeadSpec, tag: str, said: list[str]) -> None:
    card = changed(head=head, evaluations=({"split": "valid", "rmse": 2.5},) if head.kind == "value" else ())
    assert huggingface_hub.ModelCard(card).data.pipeline_tag == tag
    assert all(part in card for part in said)
    assert ("## Labels" in card) == (head.kind != "value")
    assert ("| Root mean squared error | 2.5 |" in card) == (head.kind == "value")
    assert ("No split was evaluated." in card) == (head.kind != "value")


def test_of_many_labels_the_first_are_listed() -> None:
    labels = [f"label {number}" for number in range(MOST_LISTED + 1_500)]
    card = changed(head=HeadSpec("class", len(labels)), labels=labels, bases=())
    assert f"| {MOST_LISTED - 1} | label {MOST_LISTED - 1} |" in card
    assert f"label {MOST_LISTED} |" not in card
    assert "1,500 more are in `config.json`." in card
    assert "from random weights" in card
