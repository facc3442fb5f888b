"""Choices of device, precision, threads and compiling."""

from __future__ import annotations

import pytest
import torch

from acorn.config import TrainConfig
from acorn.errors import UsageError
from acorn.runtime import device, memory
from acorn.runtime.device import Runtime, choose_runtime, measure_peak, runtime_for_inference, usable_cores


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
    library = None if capabilities.get("avx512_fp16") else "this CPU does not multiply fp16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(device, "fp16_product_library", lambda: library)
    monkeypatch.setattr(device, "speedup_of", lambda precision, threads: speedups[precision])
    runtime = choose_runtime(TrainConfig())
    assert (runtime.device, runtime.precision) == ("cpu", precision)
    assert any(told.startswith(f"precision {precision}: {reason}") for told in runtime.reasons)
    assert runtime.fp16_products == (precision == "fp16")
    assert runtime.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    # A command that only reads a model computes in fp32 on a CPU whatever the hardware.
    assert runtime_for_inference("auto", "auto").precision == "fp32"


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("library", [None, "no C compiler was found"])
def test_fp16_where_it_is_asked_for(no_gpu, monkeypatch, library: str | None, compiled: bool) -> None:
    """Where the CPU or the compiler does not have it, PyTorch does it its way, and the reason is told."""
    monkeypatch.setattr(device, "fp16_product_library", lambda: library)
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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_measuring_leaves_threads_and_random_numbers_alone(precision: device.Precision) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert device.speedup_of(precision, threads + 1) > 0
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


def test_what_is_not_there_is_refused(no_gpu) -> None:
    with pytest.raises(UsageError, match="cuda is not available") as caught:
        choose_runtime(TrainConfig(device="cuda"))
    assert "cpu" in caught.value.mend
    with pytest.raises(UsageError, match="'tpu' is not known"):
        runtime_for_inference("tpu", "auto")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_start_puts_back_what_it_set(mode: int, compiled: bool) -> None:
    at_first = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(mode)
    try:
        threads = torch.get_num_threads()
        with Runtime("cpu", "fp32", compiled, 1, True).start():
            assert torch.get_num_threads() == 1
            assert torch.get_deterministic_debug_mode() == 2
        assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == (threads, mode)
    finally:
        torch.set_deterministic_debug_mode(at_first)


def test_autocast_computes_in_the_precision() -> None:
    a = torch.ones(2, 2)
    with Runtime("cpu", "bf16", False, 1, True).autocast():
        assert (a @ a).dtype == torch.bfloat16
    with Runtime("cpu", "fp32", False, 1, True).autocast():
        assert (a @ a).dtype == torch.float32


def test_peak_is_that_of_a_machine() -> None:
    assert 1e8 < measure_peak(Runtime("cpu", "fp32", False, 2, True), seconds=0.01) < 1e15
    assert usable_cores() >= 1


def test_available_memory_is_the_lesser_of_kernel_and_cgroup(monkeypatch, tmp_path) -> None:
    """Fault 26."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1000 kB\n")
    (tmp_path / "max").write_text("600000\n")
    (tmp_path / "current").write_text("100000\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP_LIMIT", tmp_path / "max")
    monkeypatch.setattr(memory, "CGROUP_USED", tmp_path / "current")
    assert memory.available_memory("cpu") == 500_000
    (tmp_path / "max").write_text("max\n")
    assert memory.available_memory("cpu") == 1_024_000
    (tmp_path / "meminfo").unlink()
    assert memory.available_memory("cpu") is None
    assert memory.available_memory("mps") is None
