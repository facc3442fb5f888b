"""The runtime, and its choices as text."""

from __future__ import annotations

import pytest
import torch

from acorn.runtime.device import Choice, Runtime, matmul_dtype, usable_cores


@pytest.mark.parametrize(
    ("choice", "line", "has_remark"),
    [
        (Choice("device", "cpu", False, "no GPU found"), "device cpu: no GPU found", False),
        (Choice("device", "cuda", True), "device cuda: as asked", False),
        (Choice("precision", "bf16", True, "though it is slow"), "precision bf16: as asked, though it is slow", True),
        (Choice("compile", False, False, "not on this device"), "compile off: not on this device", False),
        (Choice("compile", True, True), "compile on: as asked", False),
        (Choice("threads", 1, True), "threads 1: as asked", False),
    ],
)
def test_a_choice_as_text(choice: Choice[object], line: str, has_remark: bool) -> None:
    assert (str(choice), choice.has_remark) == (line, has_remark)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_start_restores_what_it_set(mode: int, compiled: bool) -> None:
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


def test_autocast_uses_the_precision() -> None:
    a = torch.ones(2, 2)
    with Runtime("cpu", "bf16", False, 1, True).autocast():
        assert (a @ a).dtype == torch.bfloat16
    with Runtime("cpu", "fp32", False, 1, True).autocast():
        assert (a @ a).dtype == torch.float32


def test_matmul_dtype_inside_autocast() -> None:
    assert matmul_dtype("cpu", torch.float64) == torch.float64
    with Runtime("cpu", "bf16", False, 1, True).autocast():
        assert matmul_dtype("cpu", torch.float64) == torch.bfloat16
        assert matmul_dtype("cuda", torch.float32) == torch.float32


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1
