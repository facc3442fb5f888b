"""Times a matmul on this machine, to choose the precision on a CPU and to measure the machine's peak."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from acorn.kernels.matmul import fp16_matmul
from acorn.runtime.device import Runtime


def matmul_on(runtime: Runtime, n: int) -> Callable[[], Tensor]:
    """A matmul of two n x n matrices, as a network does it on `runtime`."""
    generator = torch.Generator().manual_seed(0)  # does not change the random state of a run
    a, b = (torch.randn(n, n, generator=generator).to(runtime.device, runtime.dtype) for _ in range(2))
    matmul = fp16_matmul(runtime) or torch.mm
    return lambda: matmul(a, b)


def seconds_of(device: str, multiply: Callable[[], Tensor]) -> float:
    """Seconds that `multiply` takes on `device`, once its earlier work is done."""
    _wait_for(device)
    start = time.perf_counter()
    multiply()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
