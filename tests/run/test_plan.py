"""A plan matches the run's text and sizes, and refuses what the run would refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from acorn.config import Config
from acorn.config_files import load_config
from acorn.data.token_shards import TokenShards
from acorn.errors import AcornError, DamageError, InputError, ResourceError, UsageError
from acorn.report.metrics_log import read_metrics
from acorn.run import budget, plan
from acorn.run.plan import plan_run
from acorn.run.pretrain import pretrain
from acorn.run_folder import RunFolder


@pytest.fixture
def one_second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "seconds_per_step", lambda *_: 1.0)


@pytest.mark.usefixtures("one_second_a_step")
def test_a_plan_matches_the_run(tiny, tmp_path: Path) -> None:
    """Vocabulary size, tokens and epochs are equal to those of the run."""
    facts = plan_run(tiny("tokenizer.vocab_size=9999"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = pretrain(tiny("tokenizer.vocab_size=9999"), tmp_path / "run")
    shards = TokenShards.open(RunFolder(result.folder).data)
    assert facts["vocab_size"] == shards.tokenizer().vocab_size < 9999
    assert facts["text"] == "whole"
    assert (facts["train_tokens"], facts["train_bytes"]) == (shards.count("train").tokens, shards.count("train").bytes)
    last = [record for record in read_metrics(RunFolder(result.folder).metrics) if record["split"] == "train"][-1]
    assert facts["epochs"] == pytest.approx(last["epoch"])
    assert facts["tokens"] == last["tokens"]
    assert facts["minutes"] == pytest.approx(12 / 60)


@pytest.mark.usefixtures("one_second_a_step")
def test_a_plan_counts_the_tokens_of_prepared_shards(tiny, run_tiny, tmp_path: Path) -> None:
    run_tiny(tmp_path / "run")
    data = tmp_path / "run" / "data"
    facts = plan_run(tiny("data.source=", f"data.shards={data}"))
    assert facts["train_tokens"] == TokenShards.open(data).count("train").tokens
    next(data.glob("train-*.bin")).unlink()
    with pytest.raises(DamageError, match="is missing"):
        plan_run(tiny("data.source=", f"data.shards={data}"))


@pytest.mark.usefixtures("one_second_a_step")
def test_a_plan_without_text_has_the_sizes() -> None:
    facts = plan_run(load_config("small", ["train.steps=100"]))
    assert (facts["text"], facts["train_tokens"], facts["epochs"]) == ("none", None, None)
    assert facts["parameters"] == 1_475_456


@pytest.mark.usefixtures("one_second_a_step")
@pytest.mark.parametrize("key", ["data.source", "data.valid_source"])
def test_a_plan_does_not_fetch_a_dataset_of_the_hub(tiny, key: str, network_attempts: list[str]) -> None:
    facts = plan_run(tiny(f"{key}=hf:someone/something"))
    assert (facts["text"], facts["train_tokens"], facts["vocab_size"]) == ("hub", None, 320)
    assert network_attempts == []


def refusals(folder: Path) -> list[tuple[type[AcornError], list[str]]]:
    (folder / "latin-1.txt").write_bytes("caf\xe9 cr\xe8me.\n".encode("latin-1") * 500)
    (folder / "short.txt").write_text("".join(f"{n} is a number.\n" for n in range(60)))
    return [
        (InputError, ["data.source=nowhere.txt"]),
        (InputError, ["data.valid_source=nowhere.txt"]),
        (InputError, [f"data.source={folder / 'latin-1.txt'}"]),
        (InputError, [f"data.valid_source={folder / 'latin-1.txt'}"]),
        (InputError, [f"data.source={folder / 'latin-1.txt'}", "data.valid_source=hf:someone/something"]),
        (InputError, [f"data.source={folder / 'short.txt'}", "model.block_size=4096"]),
        (UsageError, ["data.source=hf:no-such-folder"]),
        (UsageError, ["tokenizer.vocab_size=100"]),
        (UsageError, ["model.vocab_size=1000"]),
        (InputError, ["tokenizer.path=nowhere.json"]),
        (InputError, ["data.source=", "data.shards=nowhere"]),
        (UsageError, ["train.init_from=nowhere"]),
        (UsageError, ["train.device=mps" if torch.cuda.is_available() else "train.device=cuda"]),
        (ResourceError, ["model.n_embd=65536", "model.n_layer=4"]),
    ]


@pytest.mark.usefixtures("one_second_a_step")
@pytest.mark.parametrize("case", range(14))
def test_a_plan_refuses_what_the_run_would_refuse(tiny, tmp_path: Path, case: int) -> None:
    """With the same error as the run, and without writing anything."""
    kind, overrides = refusals(tmp_path)[case]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind) as planned:
        plan_run(tiny(*overrides), tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == before
    if "hf:someone" not in overrides[-1]:  # the run would try to reach the Hub first
        with pytest.raises(kind) as refused:
            pretrain(tiny(*overrides), tmp_path / "run")
        assert (planned.value.what.split(";")[0], planned.value.where) == (
            refused.value.what.split(";")[0],  # after it: the bytes that are free now, which vary
            refused.value.where,
        )


@pytest.mark.usefixtures("one_second_a_step")
def test_a_run_without_a_length_is_refused(tiny) -> None:
    with pytest.raises(UsageError, match="has no length"):
        plan_run(tiny("train.steps=0"))
    with pytest.raises(UsageError, match="has no length"):
        plan_run(Config())


@pytest.mark.usefixtures("one_second_a_step")
def test_too_little_disk_space_for_checkpoints_or_shards_is_refused(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    assert real.f_bavail
    monkeypatch.setattr(budget, "free_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match="The run's checkpoints need"):
        plan_run(tiny(), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(plan, "seconds_per_step", lambda *_: 1.0)
    monkeypatch.setattr("acorn.files.free_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match="too small for the shards of split train"):
        plan_run(tiny(), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_while_timing_steps_is_reported(tiny, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def measured(*_: object) -> float:
        raise error

    monkeypatch.setattr(plan, "seconds_per_step", measured)
    with pytest.raises(ResourceError, match="Out of memory while timing a step of one or two layers"):
        plan_run(tiny())


def test_other_errors_are_not_reported_as_out_of_memory(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> float:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(plan, "seconds_per_step", measured)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        plan_run(tiny())
