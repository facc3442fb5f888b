"""What the head of a finetuned run's report and a comparison of such runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acorn.report.html import write_report
from acorn.report.run_facts import read_run
from acorn.report.task_figures import comparison_rows, example_rows, loss_unit, main_figures

BASELINES = {"majority": {"accuracy": 0.5}, "tfidf_logistic": {"accuracy": 0.875}, "notes": []}
FIGURES = {"task": "classify", "examples": 8, "accuracy": 0.75, "macro_f1": 0.7, "baselines": BASELINES, "notes": []}


@pytest.fixture
def finetuned(make_run):
    """Makes the folder of a finetuned run with figures of its sides."""

    def make(name: str, digest: str, task: str = "classify", **sides: dict) -> Path:
        run = make_run(name, overrides=(f"finetune.task={task}",))
        (run / "evaluation.json").write_text(json.dumps({"step": 60, **sides}))
        splits = {side: {"examples": 8, "rows": 8} for side in ("train", *sides)}
        files = {f"{side}.jsonl": {"sha256": digest * 32} for side in splits}
        (run / "data" / "manifest.json").write_text(json.dumps({"files": files, "splits": splits}))
        return run

    return make


def test_the_head_shows_the_test_side_and_its_baselines(finetuned) -> None:
    run = finetuned("mine", "ab", valid={**FIGURES, "accuracy": 0.25}, test=FIGURES)
    first, second = main_figures(read_run(run), 2)
    assert first == ("Test accuracy", "75.0 %", "Most frequent label 50.0 %, TF-IDF + logistic regression 87.5 %")
    assert second == ("Test macro F1", "0.7000", "")
    page = write_report(run).read_text()
    header = page.partition("</header>")[0]
    assert "75.0 %" in header
    assert "Training examples" in header
    assert "bits per byte" not in header
    assert "nats per token" not in page.partition('<section id="glossary">')[0]
    assert 'id="samples"' not in page  # a classifier has none


def test_before_the_end_the_last_validation_counts(finetuned) -> None:
    run = finetuned("mine", "ab")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 61, "split": "valid", "loss": 1.0, "accuracy": 0.5}) + "\n")
    assert main_figures(read_run(run), 3) == [("Validation accuracy so far", "50.0 %", "")]


def test_a_comparison_says_where_the_examples_differ(finetuned) -> None:
    runs = [
        read_run(finetuned(name, digest, valid=FIGURES)) for name, digest in (("a", "ab"), ("b", "ab"), ("c", "cd"))
    ]
    same, other = comparison_rows(runs[:2]), comparison_rows(runs)
    assert [row[0] for row in same] == ["Validation accuracy", "Validation macro F1"]
    assert "not comparable: different examples" in other[0][0]
    assert all(cell.startswith("75.0 %") for cell in other[0][1:])
    assert example_rows(runs)[0] == ["Training examples", *["8, SHA-256 abababababab"] * 2, "8, SHA-256 cdcdcdcdcdcd"]
    page = write_report(runs[0].folder, [runs[2].folder]).read_text()
    assert "not comparable: different examples" in page


def test_the_unit_of_a_loss_is_that_of_the_task(finetuned, make_run) -> None:
    classes, answers, text = (
        read_run(run) for run in (finetuned("a", "ab"), finetuned("b", "ab", task="complete"), make_run("c"))
    )
    assert loss_unit([classes, classes]) == "nats per label"
    assert loss_unit([answers]) == "nats per answer token"
    assert loss_unit([text]) == "nats per token"
    assert loss_unit([classes, text]) == ""
