"""Choices of device, precision, threads and compilation for a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cpus import needs_fp16

from acorn.config import Config, ModelConfig, TrainConfig
from acorn.config_files import flatten, load_config
from acorn.kernels.build import Unavailable
from acorn.run import resolve as choosing
from acorn.run.budget import step_memory
from acorn.run.resolve import (
    OPEN_VALUES,
    choose_micro_batch_size,
    choose_runtime,
    open_again,
    resolve,
    with_choices_of,
)
from acorn.runtime.choose import runtime_for_inference
from acorn.runtime.device import Choice, Precision, Runtime


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def choice_of(runtime: Runtime, setting: str) -> Choice[object]:
    return next(choice for choice in runtime.choices if choice.setting == setting)


@pytest.mark.parametrize(
    ("capabilities", "speedups", "precision", "reason"),
    [
        (
            {"avx2": True},
            {},
            "fp32",
            "the hardware has no bf16 matmuls, fp16: this CPU has no fp16 instructions",
        ),  # emulated: not even tried
        ({"avx512_bf16": True}, {"bf16": 1.9}, "bf16", "bf16 matmuls are 1.9x as fast as fp32 here"),
        ({"avx512_bf16": True}, {"bf16": 0.5}, "fp32", "bf16 matmuls are 0.5x as fast as fp32 here"),
        ({"amx_bf16": True, "avx512_fp16": True}, {"bf16": 7.0}, "bf16", "bf16 matmuls are 7.0x"),
        ({"avx512_bf16": True, "avx512_fp16": True}, {"bf16": 0.5, "fp16": 1.8}, "fp16", "fp16 matmuls are 1.8x"),
        (
            {"avx512_fp16": True},
            {"fp16": 1.1},
            "fp32",
            "fp16 matmuls are 1.1x as fast as fp32 here, the hardware has no bf16",
        ),
    ],
)
def test_a_cpu_uses_the_precision_that_it_is_fast_in(
    no_gpu, monkeypatch, capabilities: dict, speedups: dict[str, float], precision: str, reason: str
) -> None:
    library = None if capabilities.get("avx512_fp16") else Unavailable("this CPU has no fp16 instructions")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(choosing, "fp16_library", lambda: library)
    monkeypatch.setattr(choosing, "speedup_of", lambda precision, threads: speedups[precision])
    runtime = choose_runtime(TrainConfig())
    assert (runtime.device, runtime.precision) == ("cpu", precision)
    told = choice_of(runtime, "precision")
    assert not told.asked
    assert str(told).startswith(f"precision {precision}: {reason}")
    assert runtime.fp16_matmuls == (precision == "fp16")
    assert runtime.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    # A command that only reads a model computes in fp32 on a CPU, whatever the hardware.
    assert runtime_for_inference("auto", "auto").precision == "fp32"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("library", [None, Unavailable("no C compiler was found")])
def test_requested_fp16_on_a_cpu(no_gpu, monkeypatch, library: Unavailable | None, compiled: bool) -> None:
    """If the CPU or compiler does not support it, PyTorch's own fp16 is used, and the reason is given."""
    monkeypatch.setattr(choosing, "fp16_library", lambda: library)
    runtime = choose_runtime(TrainConfig(precision="fp16", compile=compiled))
    own = library is None and not compiled
    assert (runtime.precision, runtime.fp16_matmuls) == ("fp16", own)
    assert runtime.dtype == (torch.float32 if own else torch.float16)
    choice = choice_of(runtime, "precision")
    told = str(choice)
    assert choice.has_remark == (not own)
    if own:
        assert told == "precision fp16: as asked"
    else:
        assert told.startswith(
            "precision fp16: as asked, with PyTorch's matmuls, which are no faster than fp32 on a CPU: "
        )
        assert told.endswith("a compiled network uses PyTorch's matmuls" if compiled else "no C compiler was found")
    # Commands that only read a model never use acorn's fp16 matmuls.
    assert not runtime_for_inference("cpu", "fp16").fp16_matmuls


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=needs_fp16)])
def test_measuring_does_not_change_threads_or_random_state(precision: Precision) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert choosing.speedup_of(precision, threads + 1) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_precision_and_compilation_on_gpus(monkeypatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    runtime = choose_runtime(TrainConfig(), expected_seconds=3600)
    assert (runtime.device, runtime.precision, runtime.compile) == ("cuda", precision, True)


def test_only_runs_that_amortize_compilation_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    fp32 = TrainConfig(precision="fp32")
    assert not choose_runtime(fp32, expected_seconds=180).compile
    assert choose_runtime(fp32, expected_seconds=1800).compile
    assert choose_runtime(TrainConfig(precision="bf16"), expected_seconds=180).compile
    assert choose_runtime(TrainConfig(compile=True), expected_seconds=1).compile


def test_on_a_cpu_compilation_must_be_requested(no_gpu) -> None:
    assert not choose_runtime(TrainConfig(), expected_seconds=1e6).compile
    assert choose_runtime(TrainConfig(compile=True), expected_seconds=1).compile


def test_the_micro_batch_is_the_largest_divisor_of_the_batch_that_fits() -> None:
    model = ModelConfig(n_layer=2, n_embd=64, vocab_size=1000)
    config = Config(model=model, train=TrainConfig(device="cpu", precision="fp32", batch_size=12))
    runtime = choose_runtime(config.train)
    needs = {n: step_memory(config, runtime, n) for n in (1, 2, 3, 4, 6, 12)}
    assert sorted(needs.values()) == list(needs.values())
    assert choose_micro_batch_size(config, runtime, None) == 12
    assert choose_micro_batch_size(config, runtime, int(needs[6] / choosing.MAX_MEMORY_SHARE) + 1) == 6
    assert choose_micro_batch_size(config, runtime, 1) == 1


@pytest.mark.parametrize(("asked", "given"), [(5, 5), (13, 12)])
def test_a_requested_micro_batch_is_at_most_the_batch(asked: int, given: int) -> None:
    config = Config(train=TrainConfig(device="cpu", precision="fp32", batch_size=12, micro_batch_size=asked))
    assert choose_micro_batch_size(config, choose_runtime(config.train), 1) == given


def test_every_open_setting_is_resolved(no_gpu, tmp_path: Path) -> None:
    """Every value in OPEN_VALUES is replaced, and resolving again changes nothing."""
    config = Config(model=ModelConfig(n_layer=1, n_embd=16, block_size=8), train=TrainConfig(steps=1, threads=3))
    resolved, runtime = resolve(config, tmp_path / "run", 300, None)
    values = flatten(resolved)
    assert {key for key, open_value in OPEN_VALUES.items() if values[key] == open_value} == set()
    assert values["train.init"] != "auto"
    for key in ("device", "precision", "compile", "threads"):
        assert choice_of(runtime, key).value == values[f"train.{key}"] == getattr(runtime, key)
    assert [choice.asked for choice in runtime.choices] == [False, False, False, True]
    again, runtime = resolve(resolved, tmp_path / "run", 300, None)
    assert again == resolved
    assert all(choice.asked for choice in runtime.choices)


def test_earlier_choices_are_kept_for_open_settings() -> None:
    earlier = Config(train=TrainConfig(device="cpu", precision="bf16", threads=2, steps=7))
    asked = Config(train=TrainConfig(precision="fp32", steps=9))
    kept = with_choices_of(earlier, asked).train
    assert (kept.device, kept.precision, kept.threads, kept.steps) == ("cpu", "fp32", 2, 9)
    opened = load_config("demo", ["train.threads=2", "train.precision=bf16", *open_again("train.threads")]).train
    assert (opened.threads, opened.precision) == (0, "bf16")
