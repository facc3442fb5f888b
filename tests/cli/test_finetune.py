"""`acorn finetune` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acorn.cli.app import app
from acorn.cli.finetune import facts_of
from acorn.config_files import load_config
from acorn.errors import UsageError
from acorn.run.pretrain import pretrain

QUICK = ["train.steps=2", "train.batch_size=4", "train.precision=fp32", "train.threads=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and labeled mails."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "my.txt").write_text("".join(f"The {n}th cat saw the dog.\n" for n in range(600)))
    sizes = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=32"]
    rest = ["train.eval_every=0", "train.sample_tokens=2", *QUICK]
    pretrain(load_config("small", [f"data.source={folder / 'my.txt'}", *sizes, *rest]), folder / "base")
    rows = [f"the {'cat' if n % 3 else 'dog'} saw {n},{'pet' if n % 3 else 'dog'}" for n in range(40)]
    (folder / "mails.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return folder


def call(*arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


def test_a_run_from_rows_to_figures(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """As JSON, then resumed by its folder alone, for people."""
    monkeypatch.chdir(folder)
    call("finetune", "base", "--data", "mails.csv", "--out", "spam", "--json", *QUICK)
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run"], printed["step"], printed["was_complete"]) == ("spam", 2, False)
    figures = printed["evaluation"]["valid"]
    assert figures["labels"] == ["dog", "pet"]
    assert set(figures["baselines"]) >= {"majority", "tfidf_logistic"}
    call("finetune", "--resume", "--out", "spam")
    told = capsys.readouterr()
    assert "already complete" in told.err
    assert "accuracy" in told.out
    assert "spam/final" in told.out
    call("finetune", "--resume", "--out", "spam", "--baselines", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["evaluation"]["valid"]["baselines"]["random_weights"]["accuracy"] >= 0
    assert not printed["was_complete"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["base", "--data", "mails.csv"], "No folder is named"),
        (["--data", "mails.csv", "--out", "x"], "No model is named"),
        (["base", "--out", "x"], "No rows are named"),
        (["base", "--data", "mails.csv", "--out", "x", "--task", "sort"], "no task 'sort'"),
        (["--resume", "--out", "x", "--task", "classify"], "its own rows and task"),
    ],
)
def test_what_is_missing_is_named(folder: Path, monkeypatch, arguments: list[str], said: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=said) as refused:
        call("finetune", *arguments)
    assert refused.value.fix
    assert not Path("x").exists()


def test_baselines_stand_behind_a_figure() -> None:
    baselines = {"majority": {"accuracy": 0.5}, "tfidf_logistic": None}
    assert facts_of({"accuracy": 0.75, "macro_f1": None, "baselines": baselines}) == {
        "accuracy": "75.0 % (most frequent label 50.0 %)"
    }
    both = {"tfidf_logistic": {"macro_f1": 0.25}}
    assert facts_of({"macro_f1": 0.5, "baselines": both}) == {"macro F1": "0.5 (TF-IDF + logistic regression 0.25)"}


def test_a_plan_has_the_arguments_of_the_run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    from acorn.run import finetune_plan

    monkeypatch.chdir(folder)
    monkeypatch.setattr(finetune_plan, "step_seconds", lambda *_: (1.0, 30.0))
    call("plan", "base", "--data", "mails.csv", "--lora", "2", "--json", *QUICK)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["steps"]) == ("classify", 2)
    assert facts["trained_parameters"] < facts["parameters"]
    with pytest.raises(UsageError, match="no rows are named"):
        call("plan", "base", "--lora", "2")
