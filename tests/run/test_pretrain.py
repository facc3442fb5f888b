"""Whole runs: from text to a finished folder; interrupted, resumed, refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from acorn.checkpoint.training_state import Counters
from acorn.config_files import load_run_config
from acorn.errors import DamageError, DivergedError, InputError, ResourceError, StoppedError, UsageError
from acorn.files import read_sealed_json
from acorn.report.metrics_log import read_metrics, read_samples
from acorn.run import lifecycle
from acorn.run import peak as peak_module
from acorn.run.peak import Peak
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder
from acorn.train import loop as loop_module
from acorn.train import windows as windows_module
from acorn.train.step import StepResult, train_step
from acorn.train.watcher import Unwatched

FOREIGN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."
UNDISTURBED = ("train.eval_every=0", "train.sample_every=0", "train.save_every=0")
CLOCK = ("seconds", "tokens_per_second", "mfu")


def metrics_of(out: Path) -> list[dict]:
    """Metrics without the fields that depend on a clock."""
    return [{k: v for k, v in record.items() if k not in CLOCK} for record in read_metrics(out / "metrics.jsonl")]


def fingerprint(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def assert_equal_runs(one: Path, other: Path, step: int) -> None:
    """Bit-identical weights, optimizer state, final folder, samples and metrics, except for times."""
    first, second = RunFolder(one), RunFolder(other)
    for name in ("model.safetensors", "optimizer.safetensors"):
        tensors = load_file(first.checkpoint(step) / name), load_file(second.checkpoint(step) / name)
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])
    assert fingerprint(first.final) == fingerprint(second.final)
    assert metrics_of(one) == metrics_of(other)
    assert read_samples(first.samples) == read_samples(second.samples)
    states = [json.loads((run.checkpoint(step) / "state.json").read_text())["counters"] for run in (first, second)]
    for state in states:
        for key in ("seconds", "train_seconds", "metrics_bytes"):
            del state[key]
    assert states[0] == states[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text_file):
    """One uninterrupted run, for comparison."""
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def whole(finished, run_tiny) -> Path:
    if not finished.exists():
        run_tiny(finished)
    return finished


def test_a_run_writes_all_documented_files(whole: Path) -> None:
    run = RunFolder(whole)
    for path in (run.config, run.tokenizer, run.environment, run.metrics, run.samples, run.loss_picture, run.report):
        assert path.stat().st_size > 0, path
    assert (run.data / "manifest.json").exists()
    assert {path.name for path in run.final.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "manifest.json",
    }
    newest = run.checkpoint(12)
    assert {path.name for path in newest.iterdir()} == {
        "config.toml",
        "tokenizer.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "manifest.json",
    }
    resolved = json.loads((newest / "state.json").read_text())["resolved"]
    assert (resolved["precision"], resolved["compile"], resolved["micro_batch_size"]) == ("fp32", False, 4)
    config = run.config.read_text()
    assert '"auto"' not in config.replace('document = "auto"', "").replace('tied = "auto"', "")


def test_metrics_have_the_documented_fields(whole: Path) -> None:
    records = read_metrics(whole / "metrics.jsonl")
    train = [record for record in records if record["split"] == "train"]
    valid = [record for record in records if record["split"] == "valid"]
    assert [record["step"] for record in train] == list(range(1, 13))
    assert [record["step"] for record in valid] == [4, 8, 12]
    fields = {"step", "samples", "tokens", "epoch", "seconds", "split", "loss", "bits_per_byte"}
    assert fields | {"lr", "grad_norm", "tokens_per_second", "mfu"} == set(train[0])
    assert fields == set(valid[0])
    assert train[-1]["samples"] == 48
    assert train[-1]["tokens"] == 48 * 32
    assert train[-1]["loss"] < train[0]["loss"]
    assert [record["step"] for record in read_samples(whole / "samples.jsonl")] == [6, 12]


def test_bits_per_byte_of_the_log_equal_those_of_an_evaluation(whole: Path, tmp_path: Path, run_tiny) -> None:
    """A text of n tokens has n - 1 predictions. With n instead, a short text would get too many bits."""
    result = run_tiny(tmp_path / "short", "train.steps=2", "train.eval_tokens=0", "data.valid_fraction=0.02")
    last = [r for r in read_metrics(tmp_path / "short" / "metrics.jsonl") if r["split"] == "valid"][-1]
    assert last["loss"] == pytest.approx(result.evaluation["valid"]["loss_per_token"], rel=1e-6)
    assert last["bits_per_byte"] == pytest.approx(result.evaluation["valid"]["bits_per_byte"], rel=1e-6)
    count = json.loads((whole / "data" / "manifest.json").read_text())["splits"]["train"]
    for record in read_metrics(whole / "metrics.jsonl"):
        if record["split"] == "train":
            bits = record["loss"] * (count["tokens"] - 1) / math.log(2)
            assert record["bits_per_byte"] * count["bytes"] == pytest.approx(bits, rel=1e-9)


def test_best_and_newest_checkpoints_are_kept(whole: Path) -> None:
    run = RunFolder(whole)
    best = read_sealed_json(run.best)
    losses = {r["step"]: r["loss"] for r in read_metrics(run.metrics) if r["split"] == "valid"}
    assert best == {"step": min(losses, key=losses.__getitem__), "loss": min(losses.values())}
    assert {best["step"], 12} <= set(run.checkpoint_steps())
    assert len(run.checkpoint_steps()) <= 3


def test_equal_runs_give_equal_bytes(whole: Path, tmp_path: Path, run_tiny) -> None:
    run_tiny(tmp_path / "again")
    assert_equal_runs(whole, tmp_path / "again", 12)
    assert fingerprint(whole / "data") == fingerprint(tmp_path / "again" / "data")


def test_validation_and_samples_do_not_disturb_training(whole: Path, tmp_path: Path, run_tiny) -> None:
    """Fault 51."""
    run_tiny(tmp_path / "quiet", *UNDISTURBED)
    losses = [
        [record["loss"] for record in read_metrics(out / "metrics.jsonl") if record["split"] == "train"]
        for out in (whole, tmp_path / "quiet")
    ]
    assert losses[0] == losses[1]
    weights = [load_file(out / "final" / "model.safetensors") for out in (whole, tmp_path / "quiet")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


KILLED_AT = """
    import os, signal, sys
    from pathlib import Path
    from acorn.config_files import load_config
    from acorn.run import pretrain as training
    from acorn.train.watcher import Unwatched

    class Killer(Unwatched):
        def step(self, record, done, left):
            if record["step"] == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)

    training.pretrain(load_config(sys.argv[1]), Path(sys.argv[2]), resume=True, watcher=Killer())
"""


@pytest.mark.parametrize("steps", [(7,), (3, 5, 11)], ids=["once", "three times"])
def test_a_killed_and_resumed_run_is_bit_identical(
    whole: Path, tmp_path: Path, tiny, steps: tuple[int, ...], run_tiny
) -> None:
    """Killed by SIGKILL and started again with the same command, the run equals one that was never killed."""
    from acorn.config_files import to_toml

    config = tmp_path / "tiny.toml"
    config.write_text(to_toml(tiny()))
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED_AT))
    out = tmp_path / "killed"
    for step in steps:
        command = [sys.executable, str(script), str(config), str(out), str(step)]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
    run_tiny(out, resume=True)
    assert_equal_runs(whole, out, 12)


def test_resuming_in_a_later_epoch_is_bit_identical(tmp_path: Path, run_tiny, tiny) -> None:
    """Fault 42: stopped exactly at the end of an epoch, and in the third epoch."""
    overrides = ["model.block_size=64", "train.batch_size=16", "train.steps=50", *UNDISTURBED]
    run_tiny(tmp_path / "whole", *overrides)
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    first_of_epoch = next(r["step"] for r in records if r["split"] == "train" and r["epoch"] >= 1)
    third = next(r["step"] for r in records if r["split"] == "train" and r["epoch"] >= 2)
    assert third < 50
    for stop in (first_of_epoch, third + 1):
        with pytest.raises(StoppedError) as caught:
            run_tiny(tmp_path / "cut", *overrides, resume=True, watcher=SignalAt(stop))
        assert caught.value.exit_code == 128 + signal.SIGTERM
    run_tiny(tmp_path / "cut", *overrides, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", 50)


def test_a_run_may_start_with_a_short_context(tmp_path: Path, run_tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens in the same order, in shorter windows. A stop before or after the change has no effect."""
    seen: dict[str, list[torch.Tensor]] = {"whole": [], "short": []}

    def note(name: str) -> None:
        def step(*arguments, **options):
            micro_batches = arguments[3].micro_batches
            seen[name].append(torch.cat([ids for ids, _, _ in micro_batches]))
            assert all(ids.numel() == 2 * 32 for ids, _, _ in micro_batches)
            return train_step(*arguments, **options)

        monkeypatch.setattr(loop_module, "train_step", step)

    settings = ["schedule.short_context=8", "schedule.short_share=0.5", "train.micro_batch_size=2", *UNDISTURBED]
    note("whole")
    run_tiny(tmp_path / "plain", *settings, "schedule.short_context=0")
    note("short")
    run_tiny(tmp_path / "whole", *settings)
    assert [tuple(ids.shape) for ids in seen["short"]] == [(16, 8)] * 6 + [(4, 32)] * 6
    assert all(torch.equal(a.flatten(), b.flatten()) for a, b in zip(*seen.values(), strict=True))
    monkeypatch.undo()
    for stop in (3, 9):
        with pytest.raises(StoppedError):
            run_tiny(tmp_path / "cut", *settings, resume=True, watcher=SignalAt(stop))
    run_tiny(tmp_path / "cut", *settings, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", 12)


class SignalAt(Unwatched):
    """Sends this process a signal when a step is reported."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.at, self.number = step, number

    def step(self, record, done, seconds_left) -> None:
        if record["step"] == self.at:
            os.kill(os.getpid(), self.number)


def test_a_finished_run_is_not_changed_and_can_be_extended(whole: Path, tmp_path: Path, run_tiny) -> None:
    """Fault 43."""
    out = tmp_path / "run"
    run_tiny(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run_tiny(out, resume=True).was_complete
    assert {path: path.stat().st_mtime_ns for path in before} == before
    notes = Notes()
    result = run_tiny(out, "train.steps=14", resume=True, progress=notes)
    assert result.step == 14
    assert not result.was_complete
    assert any("No longer bit-identical to an uninterrupted run" in note for note in notes.texts)
    assert [r["step"] for r in read_metrics(out / "metrics.jsonl") if r["split"] == "train"] == list(range(1, 15))


class Notes(Unwatched):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        pass

    def end(self, task: str) -> None:
        pass


def test_no_step_exceeds_the_peak(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """A peak that was measured on a busy machine is measured again as soon as training exceeds it."""
    measured = []
    monkeypatch.setattr(lifecycle, "machine_peak", lambda runtime: Peak(1.0, "matmuls"))
    monkeypatch.setattr(peak_module, "_measured", lambda runtime: measured.append(runtime) or 1e15)
    monkeypatch.setattr(peak_module, "_keep", lambda peak, runtime: None)
    notes = Notes()
    run_tiny(tmp_path / "run", watcher=notes)
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["split"] == "train"]
    assert len(records) == 12
    assert all(0 < record["mfu"] < 1 for record in records)
    assert len(measured) == 1
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["peak"] == {"flops_per_second": 1e15, "of": "matmuls"}
    assert [text for text in notes.texts if "is now relative to 1e+03 TFLOP/s (matmuls)" in text]


def test_a_folder_in_use_is_refused_without_resume(whole: Path, run_tiny) -> None:
    with pytest.raises(UsageError, match="not empty") as caught:
        run_tiny(whole)
    assert "--resume" in str(caught.value)
    assert "--out" in str(caught.value)


def test_changed_settings_are_refused_on_resume(whole: Path, run_tiny) -> None:
    """Fault 40."""
    with pytest.raises(UsageError, match=r"model.n_layer: 2 in the run, 3 now"):
        run_tiny(whole, "model.n_layer=3", resume=True)


def test_the_newest_intact_checkpoint_is_used(whole: Path, tmp_path: Path, run_tiny) -> None:
    """Faults 37 and 38: a bit of the newest is flipped; the run resumes from the one before and ends bit-identical."""
    out = tmp_path / "run"
    run_tiny(out)
    run = RunFolder(out)
    run.evaluation.unlink()
    path = run.checkpoint(12) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run_tiny(out, resume=True)
    assert_equal_runs(whole, out, 12)
    for step in run.checkpoint_steps():
        (run.checkpoint(step) / "state.json").unlink()
    with pytest.raises(DamageError):  # fault 39: never start over silently
        run_tiny(out, resume=True)


def test_a_diverging_run_rolls_back_and_then_gives_up(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Fault 27: skipped steps, rollbacks with a new sample order, then exit code 5; the last checkpoint is intact."""
    real = loop_module.train_step
    orders = []

    def poisoned(model, forward_backward, optimizers, batch, *, counters: Counters, **options) -> StepResult:
        if counters.step >= 7:
            orders.append((counters.step, counters.rollbacks, batch.micro_batches[0][0][0, :8].tolist()))
            return StepResult(float("nan"), float("nan"), updated=False, diverged=True)
        return real(model, forward_backward, optimizers, batch, counters=counters, **options)

    monkeypatch.setattr(loop_module, "train_step", poisoned)
    with pytest.raises(DivergedError, match="after 2 rollbacks") as caught:
        run_tiny(tmp_path / "run", "train.max_skips=1", "train.max_rollbacks=2", "train.eval_every=0")
    assert caught.value.exit_code == 5
    assert [(step, rollbacks) for step, rollbacks, _ in orders] == [(7, 0), (8, 0), (7, 1), (8, 1), (7, 2), (8, 2)]
    assert orders[0][2] != orders[2][2]
    assert RunFolder(tmp_path / "run").checkpoint_steps() == [5]
    steps = [record["step"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps == sorted(set(steps))


def test_too_little_text_is_refused(tmp_path: Path, run_tiny) -> None:
    """Fault 24."""
    with pytest.raises(InputError, match="fewer than one window"):
        run_tiny(tmp_path / "run", "model.block_size=40000")


def test_too_little_memory_or_disk_space_is_refused_before_the_first_step(
    tmp_path: Path, run_tiny, monkeypatch
) -> None:
    """Faults 26 and 29."""
    monkeypatch.setattr("acorn.run.resolve.available_memory", lambda device: 100_000)
    with pytest.raises(ResourceError, match=r"A training step would need .* memory") as caught:
        run_tiny(tmp_path / "memory", "train.micro_batch_size=4")
    assert "train.micro_batch_size=" in str(caught.value) or "lower model.n_layer" in str(caught.value)
    monkeypatch.undo()
    monkeypatch.setattr("acorn.run.budget.free_bytes", lambda path: 1000)
    with pytest.raises(ResourceError, match="only 1,000 are free"):
        run_tiny(tmp_path / "disk")
    assert not (tmp_path / "disk" / "metrics.jsonl").exists()


def test_minutes_end_the_run(tmp_path: Path, run_tiny) -> None:
    """The schedule follows the clock and decays at the end; no step has a learning rate of zero."""
    result = run_tiny(tmp_path / "run", "train.minutes=0.05", *UNDISTURBED)
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["split"] == "train"]
    assert result.step == records[-1]["step"] > 3
    assert records[-1]["seconds"] == pytest.approx(3, abs=1.5)
    assert records[-1]["lr"] < 0.5 * max(record["lr"] for record in records)
    assert records[0]["lr"] > 0


def lowest_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation losses of a run that is validated at steps 4, 8 and 12."""
    losses = iter([6.0, 5.0, 5.5])
    monkeypatch.setattr(windows_module, "score", lambda *arguments, **options: (next(losses), 1))


def test_final_can_have_the_best_weights(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """final/ holds the weights of the lowest validation loss."""
    lowest_in_between(monkeypatch)
    out = tmp_path / "run"
    run_tiny(out, "checkpoint.final=best")
    run = RunFolder(out)
    assert read_sealed_json(run.best)["step"] == 8
    assert json.loads(run.evaluation.read_text())["weights_of_step"] == 8
    name = "model.embed_tokens.weight"
    tensors, kept, last = (
        load_file(folder / "model.safetensors") for folder in (run.final, run.checkpoint(8), run.checkpoint(12))
    )
    assert torch.equal(tensors[name], kept["token_embedding.weight"])
    assert not torch.equal(tensors[name], last["token_embedding.weight"])


@pytest.mark.parametrize(("settings", "told"), [([], True), (["checkpoint.final=best"], False)])
def test_a_risen_validation_loss_is_reported(tmp_path: Path, run_tiny, monkeypatch, settings, told) -> None:
    """In the terminal, report and card, with the place of the best weights, unless final/ has them."""
    lowest_in_between(monkeypatch)
    notes, out = Notes(), tmp_path / "run"
    run_tiny(out, *settings, progress=notes)
    found = [text for text in notes.texts if "lowest at step 8 (5.000) and is 5.500 now" in text]
    assert len(found) == told
    assert all(str(RunFolder(out).checkpoint(8)) in text for text in found)
    assert "was lowest at step 8 (5.000) and is 5.500 now" in RunFolder(out).report.read_text("utf-8")
    limit = "- Validation loss was lowest at step 8 (5.000 nats per token) and had risen to 5.500 at step 12:"
    assert (limit in (RunFolder(out).final / "README.md").read_text("utf-8")) == told


def test_a_validation_loss_that_did_not_rise_is_not_mentioned(tmp_path: Path, run_tiny) -> None:
    notes = Notes()
    run_tiny(tmp_path / "run", progress=notes)
    assert notes.texts
    assert not any("lowest at step" in text for text in notes.texts)


def test_the_evaluation_equals_that_of_transformers_on_the_final_folder(whole: Path, text_file: Path) -> None:
    """Other libraries read text, tokenizer and model; the test cuts the windows. Loss and bits per byte are equal."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(whole / "final").eval()
    tokenizer = AutoTokenizer.from_pretrained(whole / "final")
    ours = json.loads((whole / "evaluation.json").read_text())["valid"]
    valid = np.fromfile(whole / "data" / "valid-00000.bin", dtype="<u2").astype(np.int64)
    separator = tokenizer.bos_token_id
    documents = [piece.tolist() for piece in np.split(valid, np.flatnonzero(valid == separator)) if len(piece) > 1]
    texts = [tokenizer.decode(ids[1:]) for ids in documents]
    assert all(text in text_file.read_text() for text in texts)
    assert sum(len(text.encode()) for text in texts) == ours["bytes"]
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]] + [separator]
    assert ids == valid.tolist()
    total = 0.0
    for begin in range(0, len(ids) - 1, 32):
        window = torch.tensor([ids[begin : begin + 33]])
        with torch.no_grad():
            logits = model(window[:, :-1]).logits[0]
        total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
    assert total / (len(ids) - 1) == pytest.approx(ours["loss_per_token"], abs=1e-5)
    assert total / math.log(2) / ours["bytes"] == pytest.approx(ours["bits_per_byte"], abs=1e-5)
    words = sum(len(text.split()) + len(text.splitlines()) for text in texts)
    assert math.exp(total / words) == pytest.approx(ours["word_perplexity"], rel=1e-4)


def test_a_signal_in_the_last_step_stops_the_run(whole: Path, tmp_path: Path, run_tiny) -> None:
    """The checkpoint is saved and the run stops; resuming ends bit-identical."""
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run_tiny(out, watcher=SignalAt(12))
    assert not (out / "evaluation.json").exists()
    run_tiny(out, resume=True)
    assert_equal_runs(whole, out, 12)


@pytest.mark.parametrize("step", [3, 4, 6, 10, 12])
def test_a_stop_does_not_wait_for_validation(whole: Path, tmp_path: Path, run_tiny, step: int) -> None:
    """At a validation (4), samples (6), a save (10), the end (12) and between: the run stops within a short time."""
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run_tiny(out, resume=True, watcher=SignalAt(step))
    records = read_metrics(out / "metrics.jsonl")
    assert records[-1]["step"] == step
    assert records[-1]["split"] == "train"
    run_tiny(out, resume=True)
    assert_equal_runs(whole, out, 12)
    assert RunFolder(out).checkpoint_steps() == RunFolder(whole).checkpoint_steps()
    assert read_sealed_json(RunFolder(out).best) == read_sealed_json(RunFolder(whole).best)


@pytest.mark.parametrize("at", ["in the middle", "at the end", "when made up for"])
def test_a_stop_interrupts_a_validation_which_resuming_repeats(
    whole: Path, tmp_path: Path, run_tiny, monkeypatch, at: str
) -> None:
    """A whole split may take longer than a supervisor waits. The interrupted validation leaves no trace."""
    real, cut = windows_module.score, []
    step = 12 if at == "at the end" else 8

    def score(model, tokens, *, progress, **options):
        if run.metrics.exists() and read_metrics(run.metrics)[-1]["step"] == step and len(cut) < times:
            cut.append(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, tokens, progress=progress, **options)

    run, times = RunFolder(tmp_path / "run"), 2 if at == "when made up for" else 1
    monkeypatch.setattr(windows_module, "score", score)
    for _ in range(times):
        with pytest.raises(StoppedError, match=f"Stopped at step {step}; a checkpoint was saved"):
            run_tiny(run.root, resume=True)
        assert [record["step"] for record in read_metrics(run.metrics) if record["split"] == "valid"][-1] < step
    run_tiny(run.root, resume=True)
    assert cut == [step] * times
    assert_equal_runs(whole, run.root, 12)
    assert run.checkpoint_steps() == RunFolder(whole).checkpoint_steps()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal here")
def test_closing_the_terminal_stops_the_run(tmp_path: Path, run_tiny) -> None:
    """Except a run that was started to outlive it, with nohup for example."""
    with pytest.raises(StoppedError) as caught:
        run_tiny(tmp_path / "run", watcher=SignalAt(3, signal.SIGHUP))
    assert caught.value.exit_code == 129
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_tiny(tmp_path / "other", watcher=SignalAt(3, signal.SIGHUP)).step == 12
    finally:
        signal.signal(signal.SIGHUP, before)


def test_shards_of_other_text_are_never_trained_on(tmp_path: Path, run_tiny, text_file: Path, monkeypatch) -> None:
    """Killed with the old text, then with a new text before its shards were written: the third start makes them."""
    out, other = tmp_path / "run", tmp_path / "other.txt"
    other.write_text(text_file.read_text().replace("dog", "fox"))

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Loop, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(out)
    with monkeypatch.context() as patch:
        patch.setattr("acorn.run.text.prepare", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(out, f"data.source={other}", resume=True)
    run_tiny(out, f"data.source={other}", resume=True)
    run_tiny(tmp_path / "fresh", f"data.source={other}")
    assert fingerprint(out / "data") == fingerprint(tmp_path / "fresh" / "data")


def test_choices_made_before_the_first_checkpoint_are_kept(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """After a kill, the run starts again with less free memory: another micro-batch would change the last bits."""
    monkeypatch.setattr("acorn.run.resolve.available_memory", lambda device: 1 << 40)
    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Loop, "train", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(tmp_path / "run")
    monkeypatch.setattr("acorn.run.resolve.MAX_MEMORY_SHARE", 0.0)  # a new choice would be 1
    run_tiny(tmp_path / "run", resume=True)
    assert load_run_config(tmp_path / "run" / "config.toml").train.micro_batch_size == 4


def interrupt(*arguments, **options) -> None:
    raise KeyboardInterrupt


def test_a_run_without_its_config_resumes_with_that_of_its_checkpoint(tmp_path: Path, run_tiny) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run_tiny(out, watcher=SignalAt(7))
    before = (out / "config.toml").read_bytes()
    (out / "config.toml").unlink()
    assert pretrain(None, out, resume=True).step == 12
    assert (out / "config.toml").read_bytes() == before


@pytest.mark.fault(39)
@pytest.mark.parametrize("left", ["final", "checkpoints/best.json", "evaluation.json"])
def test_a_run_whose_checkpoints_are_missing_does_not_start_over(
    whole: Path, tmp_path: Path, run_tiny, left: str
) -> None:
    """Fault 39: files that only a run with checkpoints writes show that there were some."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    run = RunFolder(out)
    for step in run.checkpoint_steps():
        shutil.rmtree(run.checkpoint(step))
    for name in {"final", "checkpoints/best.json", "evaluation.json"} - {left}:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(DamageError, match="shows that there were some") as caught:
        run_tiny(out, resume=True)
    assert caught.value.fix
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.fault(40)
@pytest.mark.parametrize("key", ["model.n_layer=3", "tokenizer.vocab_size=330", "data.valid_fraction=0.3"])
def test_fixed_settings_cannot_be_changed(tmp_path: Path, run_tiny, key: str) -> None:
    """Fault 40: not even with --allow-change, where it would have no effect. Nothing is written."""
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run_tiny(out, watcher=SignalAt(7))
    before = (out / "config.toml").read_bytes()
    with pytest.raises(UsageError, match="cannot change"):
        run_tiny(out, key, resume=True, allow_change=[key.partition("=")[0]])
    assert (out / "config.toml").read_bytes() == before
    assert run_tiny(out, resume=True).step == 12


@pytest.mark.fault(43)
def test_fewer_steps_than_reached_are_refused(whole: Path, run_tiny) -> None:
    """Fault 43: a typing error must not mark a run as finished."""
    with pytest.raises(UsageError, match="the run is at step 12"):
        run_tiny(whole, "train.steps=4", resume=True)


def test_missing_shards_are_made_again(whole: Path, tmp_path: Path, run_tiny) -> None:
    """If they are not equal byte for byte, the run is not resumed."""
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        run_tiny(out, watcher=SignalAt(7))
    shutil.rmtree(out / "data")
    run_tiny(out, resume=True)
    assert_equal_runs(whole, out, 12)
    (out / "evaluation.json").unlink()
    (out / "data" / "manifest.json").unlink()
    with pytest.raises(DamageError, match=r"manifest\.json of the token shards is missing"):
        run_tiny(out, resume=True)


def test_text_outside_the_vocabulary_has_no_bits_per_byte_anywhere(run_tiny, tmp_path: Path) -> None:
    """In the log, evaluation.json, report and card. A text inside the vocabulary has them."""
    (tmp_path / "ru.txt").write_text("\n".join([FOREIGN] * 40), "utf-8")
    short = ("tokenizer.kind=wordpiece", "train.steps=2", "train.eval_every=1", "train.sample_every=0")
    result = run_tiny(
        tmp_path / "run", *short, f"data.valid_source={tmp_path / 'ru.txt'}", "data.document=line", "data.dedup=false"
    )
    records = read_metrics(result.folder / "metrics.jsonl")
    assert {(record["split"], "bits_per_byte" in record) for record in records} == {("train", True), ("valid", False)}
    stored = json.loads((result.folder / "evaluation.json").read_text())["valid"]
    assert stored["bits_per_byte"] is None
    assert stored["unknown_rate"] > 0.8
    reason = stored["bits_per_byte_note"]
    assert "unknown tokens" in reason
    card = (result.folder / "final" / "README.md").read_text()
    assert reason in card
    assert "| Bits per byte |" not in card
    assert "type: bits_per_byte" not in card
    report = (result.folder / "report.html").read_text()
    assert reason in report
    assert "<small>bits per byte</small>" not in report
    assert "Validation bits per byte" not in report
