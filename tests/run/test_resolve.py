"""Choices of device, precision, threads and compiling for a training run."""

from __future__ import annotations

import pytest
import torch
from cpus import needs_fp16

from acorn.config import TrainConfig
from acorn.kernels.build import Unavailable
from acorn.run import resolve as choosing
from acorn.run.resolve import choose_runtime, measure_peak
from acorn.runtime.device import Precision, Runtime, runtime_for_inference


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("capabilities", "speedups", "precision", "reason"),
    [
        (
            {"avx2": True},
            {},
            "fp32",
            "no bf16 products in this hardware, fp16: this CPU does not multiply fp16",
        ),  # emulated: not even tried
        ({"avx512_bf16": True}, {"bf16": 1.9}, "bf16", "bf16 products are 1.9 times as fast as fp32 ones here"),
        ({"avx512_bf16": True}, {"bf16": 0.5}, "fp32", "bf16 products are 0.5 times as fast as fp32 ones here"),
        ({"amx_bf16": True, "avx512_fp16": True}, {"bf16": 7.0}, "bf16", "bf16 products are 7.0 times"),
        ({"avx512_bf16": True, "avx512_fp16": True}, {"bf16": 0.5, "fp16": 1.8}, "fp16", "fp16 products are 1.8 times"),
        (
            {"avx512_fp16": True},
            {"fp16": 1.1},
            "fp32",
            "fp16 products are 1.1 times as fast as fp32 ones here, no bf16",
        ),
    ],
)
def test_a_cpu_multiplies_in_what_it_is_faster_at(
    no_gpu, monkeypatch, capabilities: dict, speedups: dict[str, float], precision: str, reason: str
) -> None:
    library = None if capabilities.get("avx512_fp16") else Unavailable("this CPU does not multiply fp16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(choosing, "fp16_library", lambda: library)
    monkeypatch.setattr(choosing, "speedup_of", lambda precision, threads: speedups[precision])
    runtime = choose_runtime(TrainConfig())
    assert (runtime.device, runtime.precision) == ("cpu", precision)
    assert any(told.startswith(f"precision {precision}: {reason}") for told in runtime.reasons)
    assert runtime.fp16_products == (precision == "fp16")
    assert runtime.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    # A command that only reads a model computes in fp32 on a CPU whatever the hardware.
    assert runtime_for_inference("auto", "auto").precision == "fp32"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("library", [None, Unavailable("no C compiler was found")])
def test_fp16_where_it_is_asked_for(no_gpu, monkeypatch, library: Unavailable | None, compiled: bool) -> None:
    """Where the CPU or the compiler does not have it, PyTorch does it its way, and the reason is told."""
    monkeypatch.setattr(choosing, "fp16_library", lambda: library)
    runtime = choose_runtime(TrainConfig(precision="fp16", compile=compiled))
    own = library is None and not compiled
    assert (runtime.precision, runtime.fp16_products) == ("fp16", own)
    assert runtime.dtype == (torch.float32 if own else torch.float16)
    told = next(reason for reason in runtime.reasons if reason.startswith("precision "))
    if own:
        assert told == "precision fp16: as asked"
    else:
        assert told.startswith("precision fp16: as asked, and PyTorch's own, which is no faster than fp32 on a CPU: ")
        assert told.endswith("compiled has PyTorch's products" if compiled else "no C compiler was found")
    # Commands that only read a model have no network of their own to tell.
    assert not runtime_for_inference("cpu", "fp16").fp16_products


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=needs_fp16)])
def test_measuring_leaves_threads_and_random_numbers_alone(precision: Precision) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert choosing.speedup_of(precision, threads + 1) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_gpus(monkeypatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    runtime = choose_runtime(TrainConfig(), expected_seconds=3600)
    assert (runtime.device, runtime.precision, runtime.compile) == ("cuda", precision, True)


def test_compiling_must_be_earned_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    fp32 = TrainConfig(precision="fp32")
    assert not choose_runtime(fp32, expected_seconds=180).compile
    assert choose_runtime(fp32, expected_seconds=1800).compile
    assert choose_runtime(TrainConfig(precision="bf16"), expected_seconds=180).compile
    assert choose_runtime(TrainConfig(compile=True), expected_seconds=1).compile


def test_on_a_cpu_only_what_is_asked_to_be_is_compiled(no_gpu) -> None:
    assert not choose_runtime(TrainConfig(), expected_seconds=1e6).compile
    assert choose_runtime(TrainConfig(compile=True), expected_seconds=1).compile


def test_peak_is_that_of_a_machine() -> None:
    assert 1e8 < measure_peak(Runtime("cpu", "fp32", False, 2, True), seconds=0.01) < 1e15
