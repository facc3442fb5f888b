from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from acorn.report.task_section import task_section

PER_LABEL = {
    "a<b": {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 3},
    "Z": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 2},
}
FIGURES: dict[str, Any] = {
    "task": "classify",
    "examples": 5,
    "accuracy": 0.6,
    "macro_f1": 1 / 3,
    "labels": ["a<b", "Z"],
    "per_label": dict(sorted(PER_LABEL.items())),
    "confusion": [[3, 0], [2, 0]],
    "notes": ['The label "Z" is never predicted: precision is undefined, F1 is 0.'],
    "baselines": {
        "majority": {"accuracy": 0.6, "macro_f1": 0.375},
        "tfidf_logistic": None,
        "random_weights": {"accuracy": 0.4, "macro_f1": 0.2},
        "notes": ["TF-IDF is not given: scikit-learn is not installed: pip install -c constraints.txt '.[baselines]'."],
    },
}


def rows(section: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of every row of every table."""
    page = ElementTree.fromstring(f"<div>{section.replace('<br>', ' ')}</div>")
    cells = [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]
    return {row[0]: row[1:] for row in cells if row[0]}


def test_the_model_stands_beside_the_baselines_that_were_computed() -> None:
    section = task_section(FIGURES)
    assert "<th>This model</th><th>Most frequent label</th><th>Same network from random weights</th>" in section
    assert rows(section)["Accuracy"] == ["60.0 %", "60.0 %", "40.0 %"]
    assert rows(section)["Macro F1"] == ["0.3333", "0.3750", "0.2000"]
    assert "Most frequent label: as good as this model by accuracy." in section
    assert "pip install -c constraints.txt &#x27;.[baselines]&#x27;" in section
    assert "precision is undefined" in section


def test_labels_keep_their_order_and_are_escaped() -> None:
    found = rows(task_section(FIGURES))
    assert found["a<b"] == ["0.5000", "1.0000", "0.6667", "3"]
    assert found["Z"] == ["—", "0.0000", "0.0000", "2"]
    assert list(found).index("a<b") < list(found).index("Z")


@pytest.mark.parametrize(("ours", "said"), [(1.0, False), (2.0, True), (3.0, True)])
def test_a_baseline_with_the_smaller_error_is_better(ours: float, said: bool) -> None:
    section = task_section(
        {"mean_absolute_error": ours, "pearson": None, "baselines": {"tfidf_ridge": {"mean_absolute_error": 2.0}}}
    )
    assert ("this model by mean absolute error" in section) == said
    assert ("better than this model" in section) == (ours > 2)


def test_entities_answers_and_several_labels_have_their_rows() -> None:
    tags = rows(task_section({"token_accuracy": 0.9, "entity_f1": 0.5, "per_entity": {"PER": PER_LABEL["Z"]}}))
    assert tags["Token accuracy"] == ["90.0 %"]
    assert tags["PER"][-1] == "2"
    answers = rows(task_section({"exact_match": 0.995, "ended_rate": 1.0, "answer_loss": 0.01234567}))
    assert answers["Exact match"] == ["99.5 %"]
    assert answers["Loss of answers (nats per token)"] == ["0.0123"]
    several = task_section({"micro_f1": 0.5, "labels": [["a"], []], "label_names": ["a"], "per_label": {"a": {}}})
    assert rows(several)["a"] == ["—"] * 4


def test_many_labels_are_folded() -> None:
    per_label = {str(number): PER_LABEL["Z"] for number in range(61)}
    assert "<summary>By label: 61 rows</summary>" in task_section({**FIGURES, "per_label": per_label})


def test_figures_that_were_changed_by_hand_are_no_fault() -> None:
    assert "has not been evaluated" in task_section({})
    assert "no figures of this task" in task_section({"task": "classify"})
    odd = {
        **FIGURES,
        "confusion": [[1, "x"]],
        "reliability": [{"from": 0}],
        "per_label": 3,
        "baselines": [],
        "notes": 7,
    }
    section = task_section(odd)
    assert "The confusion matrix cannot be read." in section
    assert "The reliability curve cannot be read." in section
