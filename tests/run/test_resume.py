"""What may change when a run is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.config import Config
from acorn.config_files import load_config, with_values
from acorn.data.made_from import MadeFrom, prepared_shards, write_made_from
from acorn.errors import UsageError
from acorn.run.resolve import OPEN_VALUES
from acorn.run.resume import merge_configs, resumed_with, with_known_shards
from acorn.run_folder import RunFolder

RESOLVED = {
    "train.device": "cpu",
    "train.precision": "bf16",
    "train.compile": True,
    "train.micro_batch_size": 8,
    "train.threads": 2,
    "parallel.strategy": "single",
    "model.vocab_size": 300,
}


def stored() -> Config:
    return with_values(load_config("small", ["train.steps=100"]), RESOLVED)


def test_the_same_command_line_changes_nothing() -> None:
    """Choices are kept, although the command line leaves them open again."""
    assert set(RESOLVED) == set(OPEN_VALUES)
    config, changed = merge_configs(stored(), load_config("small", ["train.steps=100"]))
    assert config == stored()
    assert changed == {}


def test_allowed_changes_are_made() -> None:
    asked = load_config("small", ["train.steps=200", "train.eval_every=7", "checkpoint.keep=5"])
    config, changed = merge_configs(stored(), asked)
    assert (config.train.steps, config.train.eval_every, config.checkpoint.keep) == (200, 7, 5)
    assert config.train.precision == "bf16"
    assert changed["train.steps"] == "100 -> 200"


def test_a_run_with_the_former_architecture_name_resumes_with_the_current_one() -> None:
    run = with_values(load_config("seed", ["train.steps=100"]), RESOLVED | {"model.architecture": "seed"})
    config, changed = merge_configs(run, load_config("original", ["train.steps=100"]))
    assert (config.model.architecture, changed) == ("original", {})


def test_prepared_shards_may_be_named_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same shards keep the path stored in the run. Other shards with that path are told apart."""
    run = RunFolder(tmp_path / "here" / "run")
    for folder, content in (("here", "own"), ("there", "others"), ("copies", "own")):
        (tmp_path / folder / "shards").mkdir(parents=True)
        (tmp_path / folder / "shards" / "manifest.json").write_text(content)
    monkeypatch.chdir(tmp_path / "here")
    was = with_values(stored(), {"data.shards": "shards"})
    write_made_from(run, MadeFrom(shards=prepared_shards(run, Path("shards"))))
    for folder, named, kept in (
        ("here", "shards", "shards"),
        ("there", "../here/shards", "shards"),
        ("copies", "shards", "shards"),
        ("there", "shards", str(tmp_path / "there" / "shards")),
        ("there", "nowhere", "nowhere"),
    ):
        monkeypatch.chdir(tmp_path / folder)
        asked = with_values(was, {"data.shards": named})
        assert with_known_shards(asked, was, run).data.shards == kept


def test_steps_may_become_minutes() -> None:
    config, _ = merge_configs(stored(), load_config("small", ["train.minutes=3"]))
    assert (config.train.steps, config.train.minutes) == (0, 3)


def test_other_changes_are_refused_in_one_message() -> None:
    """Fault 40."""
    asked = load_config("small", ["train.steps=100", "model.n_layer=9", "optimizer.lr=0.5", "train.precision=fp32"])
    with pytest.raises(UsageError) as caught:
        merge_configs(stored(), asked)
    was = stored()
    assert f"model.n_layer: {was.model.n_layer} in the run, 9 now" in str(caught.value)
    assert f"optimizer.lr: {was.optimizer.lr} in the run, 0.5 now" in str(caught.value)
    assert 'train.precision: "bf16" in the run, "fp32" now' in str(caught.value)
    assert "--allow-change optimizer.lr" in str(caught.value)
    asked = load_config("small", ["train.steps=100", "optimizer.lr=0.5"])
    config, changed = merge_configs(stored(), asked, ["optimizer.lr"])
    assert config.optimizer.lr == 0.5
    assert "optimizer.lr" in changed
    with pytest.raises(UsageError, match="no setting"):
        merge_configs(stored(), asked, ["optimizer.rate"])


FINETUNED = {
    "finetune.task": "classify",
    "finetune.labels": ("ham", "spam"),
    "finetune.overlong": "cut",
    "train.steps": 12,
}
"""What the rows of a run come to."""


def finetuned(*overrides: str) -> tuple[Config, Config]:
    """The config of a command line, and the one that its run stored."""
    asked = load_config(None, ["finetune.task=auto", "finetune.epochs=3", *overrides])
    return asked, with_values(asked, RESOLVED | FINETUNED)


def test_what_followed_from_the_rows_is_kept() -> None:
    """Task, labels and the steps that the epochs come to: the same command line changes nothing."""
    asked, run = finetuned()
    assert merge_configs(run, asked) == (run, {})


def test_another_length_of_a_finetuning_run() -> None:
    """More epochs leave the steps open, which follow from the examples; steps take the place of the epochs."""
    asked, run = finetuned()
    config, changed = merge_configs(run, with_values(asked, {"finetune.epochs": 5.0}))
    assert (config.finetune.epochs, config.train.steps) == (5, 0)
    assert changed == {"finetune.epochs": "3.0 -> 5.0"}
    assert resumed_with(run, config) == ["finetune.epochs=5.0"]
    config, changed = merge_configs(run, load_config(None, ["finetune.task=auto", "train.steps=20"]))
    assert (config.finetune.epochs, config.train.steps) == (0, 20)
    assert changed == {"train.steps": "12 -> 20"}
    assert resumed_with(run, config) == ["train.steps=20"]


@pytest.mark.parametrize("change", [{"finetune.loss_on": "all"}, {"lora.rank": 4}, {"finetune.task": "regress"}])
def test_task_and_adapters_of_a_run_are_fixed(change: dict[str, object]) -> None:
    asked, run = finetuned()
    (key,) = change
    with pytest.raises(UsageError, match=key):
        merge_configs(run, with_values(asked, change))
    with pytest.raises(UsageError, match=f"cannot change {key}"):
        merge_configs(run, with_values(asked, change), [key])
