"""CUDA graphs: a function's GPU work, captured once and then replayed with a single call.

For small matmuls the CPU takes longer to launch a kernel than the GPU to run it. A CUDA graph contains all launches and
replays them together (docs/benchmarks.md has the gain).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Calls before the capture, in which compilers and libraries initialize (see PyTorch's notes on CUDA graphs)."""


class CapturedFunction:
    """A function of CUDA tensors, captured as a CUDA graph for the shapes of `inputs`.

    A replay reads and writes the same memory each time: inputs are copied to the captured ones, and the result is valid
    only until the next call.

    Args:
        function: takes tensors, returns a tensor, and never waits for the GPU. It is called WARM_UP_CALLS + 1 times by
            the constructor.
        inputs: its arguments during the capture.
        shares_memory_with: another captured function, whose intermediate results may use the same memory. The result of
            either is then valid only until the next call of any.
    """

    def __init__(
        self, function: Callable[..., Tensor], *inputs: Tensor, shares_memory_with: CapturedFunction | None = None
    ) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng([torch.cuda.current_device()]):  # the first replay gets the first random numbers
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_CALLS):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            pool = None if shares_memory_with is None else shares_memory_with._graph.pool()
            with torch.cuda.graph(self._graph, pool=pool):
                self._result = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result; `inputs` may be on the CPU."""
        for ours, theirs in zip(self._inputs, inputs, strict=True):
            ours.copy_(theirs, non_blocking=True)
        self._graph.replay()
        return self._result
