"""The same network from random weights, beside a finetuning run: interrupted in either part, with the same figures."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from acorn.checkpoint.integrity import verify_run
from acorn.config_files import load_config, load_run_config, with_values
from acorn.errors import UsageError
from acorn.files import read_sealed_json
from acorn.report.metrics_log import read_metrics
from acorn.run.baselines import baseline_config, finetune_with_baseline
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.lifecycle import RunResult
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder
from acorn.train.watcher import Unwatched

WORDS = ["cat", "dog", "bird", "red", "old"]
FIGURE = {"classify": "accuracy", "complete": "exact_match"}
STEPS = 6


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


class KillAt(Unwatched):
    """Kills the run after the n-th step that was logged, counted over both runs."""

    def __init__(self, step: int) -> None:
        self._left = step

    def step(self, record, done, left) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and rows of two tasks."""
    folder, draw = tmp_path_factory.mktemp("baselines"), random.Random(0)
    (folder / "my.txt").write_text("".join(f"The {n}th cat saw the dog.\n" for n in range(600)))
    sizes = ["tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=32", "model.block_size=32", "train.steps=2"]
    rest = ["train.seed=5", "train.eval_every=0", "train.precision=fp32", "train.threads=1", "train.sample_tokens=2"]
    pretrain(load_config("small", [f"data.source={folder / 'my.txt'}", *sizes, *rest]), folder / "base")
    texts = [f"{' '.join(draw.choices(WORDS, k=3))} {number}" for number in range(40)]
    rows = {
        "classify": [{"text": text, "label": "pet" if "cat" in text else "none"} for text in texts],
        "complete": [{"prompt": f"{text}: ", "completion": text.split()[0]} for text in texts],
    }
    for task, records in rows.items():
        (folder / f"{task}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return folder


@pytest.fixture
def tune(folder: Path):
    """Finetunes for a task, with or without the baseline."""

    def run(task: str, out: Path, *overrides: str, run=finetune_with_baseline, **options) -> RunResult:
        small = ["train.batch_size=8", "train.eval_every=3", "train.save_every=2", "optimizer.lr=0.01"]
        settings = [f"train.steps={STEPS}", *small, "train.precision=fp32", "train.threads=1", *overrides]
        config = finetune_config(str(folder / "base"), [str(folder / f"{task}.jsonl")], overrides=settings)
        return run(config, out, **options)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def whole(finished: Path, tune):
    """An uninterrupted run with its baseline."""

    def run(task: str) -> RunFolder:
        if not (finished / task).exists():
            tune(task, finished / task)
        return RunFolder(finished / task)

    return run


def fingerprint(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("task", FIGURE)
def test_the_figures_stand_beside_those_of_the_model(whole, task: str) -> None:
    run = whole(task)
    baseline = RunFolder(run.baseline)
    ours, theirs = (read_sealed_json(of.evaluation)["valid"] for of in (run, baseline))
    assert ours["baselines"]["random_weights"][FIGURE[task]] == theirs[FIGURE[task]]
    assert "random_weights" not in theirs.get("baselines", {})
    assert read_metrics(baseline.metrics)[-1]["step"] == read_metrics(run.metrics)[-1]["step"] == STEPS
    assert "Same network from random weights" in run.report.read_text("utf-8")
    assert "Same network from random weights" in (run.final / "README.md").read_text("utf-8") or task == "complete"
    assert all(check.whole for root in (run.root, run.baseline) for check in verify_run(root))


def test_it_has_the_same_examples_and_settings_and_another_beginning(whole, folder: Path) -> None:
    run = whole("classify")
    baseline = RunFolder(run.baseline)
    assert fingerprint(run.data) == fingerprint(baseline.data)
    settings, theirs = (load_run_config(of.config) for of in (run, baseline))
    assert (theirs.model, theirs.finetune, theirs.optimizer) == (settings.model, settings.finetune, settings.optimizer)
    assert theirs.train == settings.train.model_copy(update={"init_from": "", "init": "random"})
    base, tuned, other = (
        load_file(path / "model.safetensors") for path in (folder / "base" / "final", run.final, baseline.final)
    )
    name = next(name for name in base if name.endswith("mlp.up_proj.weight"))
    alike = [torch.cosine_similarity(base[name].ravel(), of[name].ravel(), 0).item() for of in (tuned, other)]
    assert alike[0] > 0.5 > 0.2 > abs(alike[1])
    assert "finetuned from" not in (baseline.final / "README.md").read_text("utf-8")


def test_killed_in_both_parts_and_resumed_is_bit_identical(whole, tune, tmp_path: Path) -> None:
    """Resumed with the same command; then there is nothing left to do."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        tune("classify", out, watcher=KillAt(3))
    assert not RunFolder(out).final.exists()
    with pytest.raises(Killed):  # from the checkpoint of step 2 on
        tune("classify", out, resume=True, watcher=KillAt(STEPS - 2 + 3))
    assert RunFolder(out).final.exists()
    assert not RunFolder(out / "baseline").final.exists()
    assert not tune("classify", out, resume=True).was_complete
    for of in ("", "baseline"):
        assert fingerprint(out / of / "final") == fingerprint(whole("classify").root / of / "final")
    assert RunFolder(out).evaluation.read_bytes() == whole("classify").evaluation.read_bytes()
    assert tune("classify", out, resume=True).was_complete
    assert finetune_with_baseline(None, out, resume=True).was_complete
    assert tune("classify", out, run=finetune, resume=True).was_complete


def test_it_can_be_asked_for_later_and_follows_a_longer_run(tune, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "random_weights" not in tune("classify", out, run=finetune).evaluation["valid"]["baselines"]
    assert "random_weights" in tune("classify", out, resume=True).evaluation["valid"]["baselines"]
    longer = tune("classify", out, "train.steps=8", run=finetune, resume=True)
    assert "random_weights" not in longer.evaluation["valid"]["baselines"]
    assert "random_weights" in tune("classify", out, "train.steps=8", resume=True).evaluation["valid"]["baselines"]
    assert read_sealed_json(RunFolder(out / "baseline").evaluation)["step"] == 8


def test_all_weights_are_trained_where_the_run_has_adapters() -> None:
    """At a rate as much lower as that of whole matrices is by default."""
    run = finetune_config("base", ["rows.csv"], lora=4)
    whole = finetune_config("base", ["rows.csv"])
    theirs = baseline_config(with_values(run, {"model.vocab_size": 9000, "finetune.freeze": 2}))
    assert (theirs.lora, theirs.finetune.freeze) == (whole.lora, 0)
    assert theirs.optimizer.lr == pytest.approx(whole.optimizer.lr)


def test_it_is_resumed_with_its_run_only(whole, tune, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="baseline of another run") as refused:
        finetune(None, whole("classify").baseline, resume=True)
    assert "--baselines" in (refused.value.fix or "")
