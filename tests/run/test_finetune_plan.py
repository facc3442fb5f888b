"""A plan of a finetuning run matches the run, and refuses what the run would refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from other_models import make_model

from acorn.cli.plan import readable_finetuning
from acorn.config import Config
from acorn.errors import AcornError
from acorn.report.metrics_log import read_metrics
from acorn.run import finetune_plan
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.finetune_plan import plan_finetuning
from acorn.run_folder import RunFolder

QUICK = ("train.batch_size=8", "train.eval_every=0", "train.precision=fp32", "train.threads=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and rows."""
    folder = tmp_path_factory.mktemp("plan")
    make_model(folder / "base", "gpt2", n_layer=1)
    rows = [{"text": f"gull {number}", "label": "odd" if number % 2 else "even"} for number in range(50)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def config(folder: Path):
    def build(*overrides: str, lora: int = 0) -> Config:
        data = [str(folder / "rows.jsonl")]
        return finetune_config(str(folder / "base"), data, lora=lora, overrides=[*QUICK, *overrides])

    return build


def test_a_plan_matches_the_run(config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_plan, "step_seconds", lambda *_: (2.0, 100.0))
    facts = plan_finetuning(config("finetune.epochs=2"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    run = RunFolder(finetune(config("finetune.epochs=2"), tmp_path / "run").folder)
    train = (run.data / "train.jsonl").read_text().splitlines()
    last = [record for record in read_metrics(run.metrics) if record["split"] == "train"][-1]
    assert facts["examples"]["train"] == facts["counted_tokens"] == len(train)  # a label is one counted position
    assert (facts["steps"], facts["epochs"]) == (last["step"], pytest.approx(last["epoch"]))
    assert facts["steps_per_epoch"] == pytest.approx(len(train) / 8)
    assert facts["minutes"] == pytest.approx(2 * last["step"] / 60)
    shown = readable_finetuning(facts)
    assert shown["task"] == "classify"
    assert f"{last['step']} steps, {facts['epochs']:.3g} epochs" in str(shown["the run"])


def test_steps_are_timed_and_adapters_take_less(config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_plan, "MIN_SECONDS", 0.0)
    whole, adapters = (plan_finetuning(config("train.minutes=3", lora=rank), tmp_path / "run") for rank in (0, 1))
    assert whole["minutes"] == 3
    assert whole["steps"] * whole["batch_size"] > 0
    assert whole["tokens_per_second"] > 0
    assert adapters["trained_parameters"] < adapters["parameters"]
    assert whole["trained_parameters"] == whole["parameters"]
    assert adapters["memory_bytes"] < whole["memory_bytes"]
    assert adapters["checkpoint_bytes"] < whole["checkpoint_bytes"]


@pytest.mark.parametrize(
    "override", ["data.clean=wikitext", "finetune.loss_on=all", "finetune.labels=[odd, other]", "model.n_layer=3"]
)
def test_what_the_run_refuses_is_refused(config, tmp_path: Path, override: str) -> None:
    refusals = []
    for work in (plan_finetuning, finetune):
        with pytest.raises(AcornError) as refused:
            work(config(override), tmp_path / "run")
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]
    assert list(tmp_path.iterdir()) == []
