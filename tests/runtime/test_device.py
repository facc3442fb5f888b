"""The runtime as a value, and the one of commands that only read a model."""

from __future__ import annotations

import pytest
import torch

from acorn.errors import UsageError
from acorn.runtime.device import Runtime, choose_device, matmul_dtype, runtime_for_inference, usable_cores


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_what_is_not_there_is_refused(no_gpu) -> None:
    with pytest.raises(UsageError, match="cuda is not available") as caught:
        choose_device("cuda")
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


def test_the_type_of_matmuls_is_autocasts_inside_its_block() -> None:
    assert matmul_dtype("cpu", torch.float64) == torch.float64
    with Runtime("cpu", "bf16", False, 1, True).autocast():
        assert matmul_dtype("cpu", torch.float64) == torch.bfloat16
        assert matmul_dtype("cuda", torch.float32) == torch.float32


def test_there_is_a_core() -> None:
    assert usable_cores() >= 1
